"""Folders of frames by URL: one image per object, of which only those that are asked for are fetched, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from umt.data.storage import remote
from umt.data.video.decoders import FrameFolder
from umt.data.video.video_reader import Frames
from umt.errors import VideoError

_AT_ONCE = 8


class RemoteFrames(FrameFolder):
    """See `FrameFolder`. `fetch` gives a local path of a URL's bytes. Raises VideoError."""

    def __init__(
        self,
        url: str,
        length: int | None,
        template: str | None,
        fetch: Callable[[str], AbstractContextManager[str]],
    ) -> None:
        self._fetch = fetch
        super().__init__(url, length, template)

    def _listed(self) -> list[str]:
        try:
            return remote.names(self.path)
        except remote.RemoteError as error:
            raise VideoError(f"{self.path}: cannot be read as a folder of frames ({error}).") from None

    def _check_folder(self) -> None:
        """That a frame is not there is seen when it is fetched."""

    def _images(self, indices: Sequence[int]) -> list[Frames]:
        with ThreadPoolExecutor(min(_AT_ONCE, len(indices))) as pool:
            return list(pool.map(self._image, indices))

    def _image(self, index: int) -> Frames:
        import cv2

        url = f"{self.path.rstrip('/')}/{self._name(index)}"
        try:
            with self._fetch(url) as path:
                content = Path(path).read_bytes()
        except remote.RemoteError as error:
            raise VideoError(f"{url}: cannot be read as an image ({error}).") from None
        return self._rgb(url, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None)
