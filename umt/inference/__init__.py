"""Weights ready to be used: model, transform and labels in one object."""
