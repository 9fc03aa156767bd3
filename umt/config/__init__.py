"""Config: what may be said on the command line. Imports no torch."""
