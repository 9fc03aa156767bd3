"""The commands that are not runs, one folder each, of the command's name."""
