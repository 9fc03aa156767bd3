"""Typed flags, their command line and error sentences. No torch."""
