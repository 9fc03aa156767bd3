"""Engine: how a run proceeds, whatever is trained."""
