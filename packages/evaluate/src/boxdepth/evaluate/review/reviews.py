"""The review page from files, for Python callers."""

import os
from pathlib import Path

from boxdepth.evaluate.export import read_source
from boxdepth.evaluate.review.page import Review, review_page


def review(
    masks: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    annotations: str | os.PathLike[str] | None = None,
    top: int = 200,
    title: str | None = None,
) -> Review:
    """One offline page on which a person accepts, sends back or drops masks, worst first.

    Args:
        masks: COCO annotations with masks, or COCO results with masks.
        images: folder of their images.
        annotations: where results are given, the file of their images.
        top: how many masks to show.
        title: headline, by default the name of the file.

    Returns:
        The page (`html`) and what it holds; nothing is written.

    Raises:
        DataError: no object has a mask, or none of the images can be read.
        UsageError: results without annotations.
    """
    path = Path(masks)
    given = None if annotations is None else Path(annotations)
    items = read_source(path, annotations=given)
    return review_page(items, Path(images), top=top, title=title or f"Review of {path.name}")
