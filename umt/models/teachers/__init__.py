"""Frozen image models that a student learns from."""
