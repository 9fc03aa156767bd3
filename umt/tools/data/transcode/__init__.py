"""`umt data transcode`: smaller copies of videos, quick to decode; the originals stay as they are."""

from umt.tools.data.transcode.command import main

__all__ = ["main"]
