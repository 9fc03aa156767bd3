"""`umt data transcode`: smaller copies of videos, quick to decode; the originals stay as they are."""

from umt.datasets.transcode.command import main

__all__ = ["main"]
