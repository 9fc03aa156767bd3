"""Weights ready to be used: a model with its frames, sizes, normalisation and class names. `umt.load` is the entry."""

__all__ = ["extraction", "features", "recognizer", "windows"]
