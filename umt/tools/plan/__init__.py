"""What a run needs before it is started: parameters, FLOPs, memory by parts, hours; and what helps when memory ends."""
