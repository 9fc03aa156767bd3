"""Tasks: one file is one thing that can be trained."""
