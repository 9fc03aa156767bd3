"""Quickstart: renders a data set, trains a toy teacher, and writes the report page."""
