"""Pictures of a look: strips of frames under their maps, a sheet of them as PNG, the clip with all maps as GIF.

Shapes: T frames, H x W pixels, T' x h x w tokens.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from umt import drawing
from umt.drawing import INK, Frames
from umt.tools.visualize.look import Look, Map

SIDE, GAP = 150, 6  # pixels: height of a frame on the page, between two
_PAPER, _WORDS = (28, 31, 37), (214, 218, 224)  # GIFs have no half-transparent edges: they bring a ground of their own
_LINE = 20  # pixels of a title
_INK = (0x80, 0x86, 0x8F)
ALONE, AMONG = "#2b8fd6", "#e0862f"


def enlarged(frames: Frames, side: int = SIDE) -> Frames:
    """Frames at `side` pixels in height, of small ones the pixels stay seen."""
    height, width = frames.shape[1:3]
    how = cv2.INTER_AREA if height > side else cv2.INTER_NEAREST
    return np.stack([cv2.resize(f, (max(round(side * width / height), 1), side), interpolation=how) for f in frames])


def painted(frames: Frames, row: Map) -> Frames:
    """frames (T, H, W, 3) under a map, whose tokens may span several frames."""
    values = np.repeat(row.values, len(frames) // len(row.values), axis=0)
    if row.kind == "mask":
        return drawing.masked(frames, values > 0.5)
    if row.kind == "heat":
        return drawing.heat(frames, values)
    return drawing.tiled(frames, values)


def chosen(count: int, shown: int) -> list[int]:
    """`shown` of `count` frames, evenly spread."""
    return [int((i + 0.5) * count / min(shown, count)) for i in range(min(shown, count))]


def strip(frames: Frames, places: Sequence[int]) -> NDArray[np.uint8]:
    """Frames side by side (h, w, 4), gaps transparent."""
    height, width = frames.shape[1:3]
    picture = np.zeros((height, len(places) * (width + GAP) - GAP, 4), np.uint8)
    for number, place in enumerate(places):
        left = number * (width + GAP)
        picture[:, left : left + width, :3] = frames[place]
        picture[:, left : left + width, 3] = 255
    return picture


def strips(look: Look, shown: int) -> list[tuple[str, str, NDArray[np.uint8]]]:
    """(title, note, picture) of the clip and of each of its maps."""
    frames = enlarged(look.frames)
    places = chosen(len(frames), shown)
    numbers = ", ".join(str(look.numbers[place]) for place in places)
    rows = [("the clip", f"Frames {numbers} of the file.", strip(frames, places))]
    return rows + [(row.title, row.note, strip(painted(frames, row), places)) for row in look.maps]


def webp(picture: NDArray[np.uint8]) -> str:
    """(h, w, 4) RGBA -> a data URI."""
    done, encoded = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_WEBP_QUALITY, 85])
    assert done
    return drawing.data_uri(encoded.tobytes(), "webp")


def sheet(look: Look, shown: int) -> bytes:
    """All strips with their titles, and the cosines, as one PNG; its ground is transparent."""
    from PIL import Image, ImageDraw

    rows = strips(look, shown)
    tall, wide = rows[0][2].shape[:2]
    chart = Image.open(io.BytesIO(cosines(look, wide))) if look.cosines else None
    height = len(rows) * (_LINE + tall + 2 * GAP) + (chart.height if chart else 0)
    page = Image.new("RGBA", (wide, height), (*_INK, 0))
    pen = ImageDraw.Draw(page)
    bold, plain = _font(13, bold=True), _font(11)
    for number, (title, note, picture) in enumerate(rows):
        top = number * (_LINE + tall + 2 * GAP)
        caption = drawing.fitted(note, round(wide - bold.getlength(title) - 24), plain)
        pen.text((0, top), title, fill=(*_INK, 255), font=bold)
        pen.text((wide - plain.getlength(caption), top + 2), caption, fill=(*_INK, 255), font=plain)
        page.paste(Image.fromarray(picture), (0, top + _LINE))
    if chart is not None:
        page.paste(chart, (0, height - chart.height))
    target = io.BytesIO()
    page.save(target, format="PNG", optimize=True)
    return target.getvalue()


def _font(points: int, *, bold: bool = False) -> Any:
    """The font that matplotlib brings: a machine may have none."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", points)


def cosines(look: Look, width: int = 620) -> bytes:
    """The cosine with the teacher of every aligned block, as PNG of `width` pixels."""
    figure, axes = drawing.figure(1, 1, (width / 110, 2.4))
    axis = drawing.dress(axes[0, 0], "cosine at the visible tokens, by block of student and teacher", points=8)
    across = np.arange(len(look.cosines))
    for shift, column, colour, name in (
        (-0.2, 1, ALONE, "the others hidden, as trained"),
        (0.2, 2, AMONG, "none hidden"),
    ):
        values = [float(entry[column]) for entry in look.cosines]
        axis.bar(across + shift, values, 0.36, color=colour, label=name)
        for x, value in zip(across + shift, values, strict=True):
            axis.text(x, max(value, 0) + 0.02, f"{value:.2f}", ha="center", color=INK, fontsize=8)
    axis.set_xticks(across, [f"blocks {entry[0]}" if len(look.cosines) < 4 else entry[0] for entry in look.cosines])
    axis.set_ylim(min(0.0, *(min(entry[1:]) for entry in look.cosines)), 1.15)
    axis.grid(False, axis="x")
    figure.legend(frameon=False, labelcolor=INK, fontsize=8, loc="outside lower right", ncols=2)
    return drawing.save(figure)


def gif(look: Look, *, side: int = SIDE, milliseconds: int = 350) -> bytes:
    """The clip and all its maps side by side, frame by frame."""
    from PIL import Image, ImageDraw

    frames = enlarged(look.frames, side)
    panels = [("the clip", frames)] + [(row.title, painted(frames, row)) for row in look.maps]
    across = min(len(panels), 3 if len(panels) in (5, 6) else 4)
    down = -(-len(panels) // across)
    tall, wide, line = side, frames.shape[2], 16
    font = _font(10)
    pictures = []
    for t in range(len(frames)):
        page = Image.new("RGB", (across * (wide + GAP) + GAP, down * (tall + line + GAP) + GAP), _PAPER)
        pen = ImageDraw.Draw(page)
        for number, (title, shown) in enumerate(panels):
            left, top = GAP + number % across * (wide + GAP), GAP + number // across * (tall + line + GAP)
            pen.text((left, top), drawing.fitted(title, wide, font), fill=_WORDS, font=font)
            page.paste(Image.fromarray(shown[t]), (left, top + line))
        pictures.append(page)
    target = io.BytesIO()
    pictures[0].save(
        target, format="GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=True
    )
    return target.getvalue()
