"""Folders of frames by URL: one image an object, of which only those that are wanted are fetched, side by side."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umt.data.storage import remote
from umt.data.video.video_reader import Frames, Reader
from umt.errors import VideoError

_AT_ONCE = 8
_ENDINGS = (".jpg", ".jpeg", ".png")


class RemoteFrames(Reader):
    """A folder of `length` images named by `template` from 1 on; without a length all its images, by name.

    `fetched` gives a local path of a URL's bytes. Raises VideoError.
    """

    def __init__(
        self,
        url: str,
        length: int | None,
        template: str | None,
        fetched: Callable[[str], AbstractContextManager[str]],
    ) -> None:
        self.path, self._fetched = url, fetched
        if length is None or template is None:
            try:
                names = sorted(name for name in remote.names(url) if name.lower().endswith(_ENDINGS))
            except remote.RemoteError as error:
                raise VideoError(f"{url}: cannot be read as a folder of frames ({error}).") from None
            if not names:
                raise VideoError(f"{url}: cannot be read as a folder of frames (no image in it).")
        else:
            names = [template.format(number) for number in range(1, length + 1)]
        self._names, self.length = names, len(names)

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
            frames = list(pool.map(self._image, wanted.tolist()))
        if len({frame.shape for frame in frames}) > 1:
            raise VideoError(f"{self.path}: its frames differ in size, so they are no video.")
        return np.stack(frames)

    def _image(self, index: int) -> Frames:
        import cv2

        url = f"{self.path.rstrip('/')}/{self._names[index]}"
        try:
            with self._fetched(url) as path:
                content = Path(path).read_bytes()
        except remote.RemoteError as error:
            raise VideoError(f"{url}: cannot be read as an image ({error}).") from None
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        if image is None:
            raise VideoError(f"{url}: cannot be read as an image.")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
