"""Evaluation: scores keyed by (row, clip, crop), merged over views; the numbers made from them."""
