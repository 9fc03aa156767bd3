"""From a video file or a folder of frames to uint8 frames."""
