"""Outlines of masks as polygons, exact to the pixel edges."""

import numpy as np
from jaxtyping import Bool

Point = tuple[int, int]


def _edges(mask: Bool[np.ndarray, "h w"]) -> dict[Point, list[Point]]:
    """Directed unit edges, (x, y) corner -> next corners; the mask lies on their right."""
    padded = np.pad(mask, 1)
    following: dict[Point, list[Point]] = {}
    for shift, start, end in (
        ((-1, 0), (0, 0), (1, 0)),  # top edges run right
        ((0, 1), (1, 0), (1, 1)),  # right edges run down
        ((1, 0), (1, 1), (0, 1)),  # bottom edges run left
        ((0, -1), (0, 1), (0, 0)),  # left edges run up
    ):
        open_side = padded & ~np.roll(padded, (-shift[0], -shift[1]), axis=(0, 1))
        for row, column in np.argwhere(open_side).tolist():
            corner = (column - 1 + start[0], row - 1 + start[1])
            following.setdefault(corner, []).append((column - 1 + end[0], row - 1 + end[1]))
    return following


def _loops(following: dict[Point, list[Point]]) -> list[list[Point]]:
    loops = []
    while following:
        start = next(iter(following))
        loop, here = [start], start
        while True:
            options = following[here]
            # Where two pixels touch by a corner keep to the one we came along: turn right.
            came = (here[0] - loop[-2][0], here[1] - loop[-2][1]) if len(loop) > 1 else (0, 0)
            turn = (here[0] - came[1], here[1] + came[0])
            towards = turn if turn in options else options[0]
            options.remove(towards)
            if not options:
                del following[here]
            here = towards
            if here == start:
                break
            loop.append(here)
        loops.append(loop)
    return loops


def _area(loop: list[Point]) -> float:
    """Twice the signed area: positive for outer loops, negative for holes."""
    return sum(
        ax * by - bx * ay for (ax, ay), (bx, by) in zip(loop, loop[1:] + loop[:1], strict=True)
    )


def _corners(loop: list[Point]) -> list[Point]:
    triples = zip(loop[-1:] + loop[:-1], loop, loop[1:] + loop[:1], strict=True)
    return [
        here
        for before, here, after in triples
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])
    ]


def _bridged(outer: list[Point], hole: list[Point]) -> list[Point]:
    """One loop from two, joined by a cut of no width where they are nearest."""
    gaps = np.square(np.array(outer)[:, None] - np.array(hole)[None]).sum(-1)
    first, second = (int(place) for place in np.unravel_index(gaps.argmin(), gaps.shape))
    around = hole[second:] + hole[: second + 1]
    return outer[: first + 1] + around + outer[first:]


def outlines(mask: Bool[np.ndarray, "h w"]) -> list[list[Point]]:
    """Polygons that enclose exactly the mask's pixels.

    Args:
        mask: Any mask; may be empty, in several parts and have holes.

    Returns:
        One polygon per 4-connected part, largest first, as (x, y) pixel corners (0 is the left or
        upper edge of the image). A hole is joined to its part's outline by a cut of no width.
    """
    loops = [_corners(loop) for loop in _loops(_edges(mask))]
    outer = sorted((loop for loop in loops if _area(loop) > 0), key=lambda loop: -_area(loop))
    for hole in (loop for loop in loops if _area(loop) < 0):
        x, y = hole[0]
        owner = max(
            range(len(outer)), key=lambda index: (_holds(outer[index], x, y), -_area(outer[index]))
        )
        outer[owner] = _bridged(outer[owner], hole)
    return outer


def _holds(loop: list[Point], x: float, y: float) -> bool:
    """Whether a loop runs around a point (even-odd rule; the point is nudged off its edges)."""
    x, y = x + 0.25, y + 0.25
    inside = False
    for (ax, ay), (bx, by) in zip(loop, loop[1:] + loop[:1], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside
