"""Data: from a line of a list to a uint8 clip. Knows nothing of models or tasks."""
