"""Typed flags, their command line and error sentences; the flags that all tasks share. No torch."""
