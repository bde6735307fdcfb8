"""Large images in overlapping tiles: where they lie, and which part of a box each of them sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from boxdepth.trainer.errors import ConfigError

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Side of the square tiles and how far neighbours overlap, in pixels of the image.

    Objects up to the overlap are whole in some tile; larger ones are put together from their parts.

    Raises:
        ConfigError: an overlap of half a tile or more.
    """

    size: int = 1024
    overlap: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size / 2:
            raise ConfigError(
                f"an overlap of {self.overlap} pixels for tiles of {self.size}: expected 0 to less "
                "than half a tile"
            )

    def windows(self, height: int, width: int) -> list[Window]:
        """The tiles of an image, row by row; all of one size unless the image is smaller."""
        rows, columns = (self._starts(length) for length in (height, width))
        return [
            (x, y, min(x + self.size, width), min(y + self.size, height))
            for y in rows
            for x in columns
        ]

    def window_of_box(self, box_xyxy: Sequence[float], *, height: int, width: int) -> Window:
        """Where to look for the mask of a box: the tile that holds it with the widest margin.

        A box that no tile holds gets a window of its own, wider by the overlap on each side.
        """
        x1, y1, x2, y2 = box_xyxy
        best: tuple[float, Window] | None = None
        for window in self.windows(height, width):
            left, top, right, bottom = window
            if left <= x1 and top <= y1 and x2 <= right and y2 <= bottom:
                margins = (
                    x1 - left if left else np.inf,
                    y1 - top if top else np.inf,
                    right - x2 if right < width else np.inf,
                    bottom - y2 if bottom < height else np.inf,
                )
                if best is None or min(margins) > best[0]:
                    best = float(min(margins)), window
        if best is not None:
            return best[1]
        return (
            max(int(x1) - self.overlap, 0),
            max(int(y1) - self.overlap, 0),
            min(int(np.ceil(x2)) + self.overlap, width),
            min(int(np.ceil(y2)) + self.overlap, height),
        )

    def _starts(self, length: int) -> list[int]:
        """First pixels along one side; tiles are spread evenly, neighbours overlap enough."""
        if length <= self.size:
            return [0]
        number = -(-(length - self.overlap) // (self.size - self.overlap))
        return [round(k * (length - self.size) / (number - 1)) for k in range(number)]


LEAST_PART = 1 / 16
"""Of the tile's side; a shorter part of a longer box is learnt where more of it is seen."""


def parts_in(
    boxes_xyxy: Float[np.ndarray, "n 4"], window: Window, *, size: tuple[int, int], tile: int
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, "n 4"]]:
    """Which boxes have a part in a tile that is worth learning, and the sides that it cuts.

    A part is worth it if it is, along both axes, half as long as its box or a sixteenth of a tile:
    every box has one in some tile.

    Args:
        boxes_xyxy: in pixels of the image, cut to it.
        size: (height, width) of the image, whose own border cuts nothing.
        tile: side of the tiles.

    Returns:
        The boxes, and for each whether it goes on to the left, above, to the right and below.
    """
    left, top, right, bottom = window
    height, width = size
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    inside = np.minimum(high, [right, bottom]) - np.maximum(low, [left, top])
    wanted = np.minimum((high - low) / 2, LEAST_PART * tile)
    kept: np.ndarray = ((inside > 0) & (inside >= wanted)).all(axis=1)
    inner: np.ndarray = np.array([left > 0, top > 0, right < width, bottom < height])
    beyond = np.concatenate([low < [left, top], high > [right, bottom]], axis=1)
    return kept, beyond & inner
