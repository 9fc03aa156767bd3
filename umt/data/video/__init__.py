"""From a video file or a folder of frames to uint8 frames."""

READERS = ("auto", "pyav", "torchcodec", "decord", "torchcodec-cuda")
"""Values of --decoder."""
