"""`umt data check LIST...`: whether lists, and with --decode the files that they name, may be trained on."""

from umt.tools.data.check.command import main

__all__ = ["main"]
