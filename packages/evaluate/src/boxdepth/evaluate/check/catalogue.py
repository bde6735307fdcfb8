"""Every mistake that `check` knows, in words, with its cure."""

from collections.abc import Iterator
from dataclasses import dataclass

from boxdepth.evaluate.check import cures, mask_cures
from boxdepth.evaluate.check.cures import Apply


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """One likely mistake and its cure.

    Attributes:
        problem: what was got wrong, in words.
        advice: how to mend it for good.
        apply: mends a copy of the records, or gives None.
    """

    problem: str
    advice: str
    apply: Apply


_ROWS = "write runs along columns: encode(np.asfortranarray(mask)), or mask.T.reshape(-1)"
_TURNED = (
    "apply the EXIF orientation in both places or in neither (Pillow: ImageOps.exif_transpose)"
)
_GAPS = "map class k to the k-th smallest id of categories[] (COCO: 80 classes, ids to 90)"

# What can be wrong with boxes and masks of either file.
SHAPES = (
    ("boxes are corners [x1, y1, x2, y2]", "write [x, y, width, height]", cures.boxes_from_corners),
    (
        "boxes are fractions of the image",
        "multiply by the image's width and height",
        cures.boxes_from_fractions,
    ),
    (
        "boxes are YOLO's: centre and size, in fractions of the image",
        "multiply by the image's width and height, and write the upper left corner",
        cures.boxes_from_yolo,
    ),
    (
        "boxes are centres and sizes [cx, cy, width, height]",
        "write the upper left corner: [cx - width / 2, cy - height / 2, width, height]",
        cures.boxes_from_centres,
    ),
    (
        "polygons are fractions of the image",
        "multiply by the image's width and height",
        mask_cures.polygons_from_fractions,
    ),
    (
        "polygons were cut to whole numbers: they lie half a pixel off their boxes",
        "write them as floats, or round instead of cutting",
        mask_cures.polygons_fitted_to_boxes,
    ),
    (
        "run lengths are the text of a bytes literal, b'...'",
        'write counts.decode("ascii"), not str(counts)',
        mask_cures.counts_from_literal,
    ),
    ("run lengths go along rows, COCO's go along columns", _ROWS, mask_cures.masks_by_rows),
    (
        "masks are transposed: their size is [width, height]",
        "encode masks of shape [height, width]",
        mask_cures.masks_transposed,
    ),
)
_RESULTS = (
    (
        "image ids are file names, not the annotations' ids",
        "write the `id` of the annotations' images[]",
        cures.images_by_name,
    ),
    (
        "image ids count 0, 1, 2, ... through the images",
        "write the `id` of the annotations' images[], not the place in a list",
        cures.images_by_order(0),
    ),
    (
        "image ids count 1, 2, 3, ... through the images",
        "write the `id` of the annotations' images[], not the place in a list",
        cures.images_by_order(1),
    ),
    (
        "image ids are one too small",
        "add 1: the annotations count from 1",
        cures.shift_images(1),
    ),
    (
        "image ids are one too large",
        "subtract 1: the annotations count from 0",
        cures.shift_images(-1),
    ),
    (
        "category ids are one too small",
        "add 1: the model counts from 0, the annotations from 1",
        cures.shift_categories(1),
    ),
    (
        "category ids are one too large",
        "subtract 1: is there a background class at 0?",
        cures.shift_categories(-1),
    ),
    (
        "category ids count from 0 without gaps; the annotations' ids have gaps",
        _GAPS,
        cures.categories_by_order(0),
    ),
    (
        "category ids count from 1 without gaps; the annotations' ids have gaps",
        _GAPS,
        cures.categories_by_order(1),
    ),
    (
        "category ids are COCO's, with gaps to 90; the annotations number the 80 classes without",
        "map the k-th of COCO's ids to the k-th smallest id of categories[]",
        cures.categories_from_coco,
    ),
    (
        "category ids count from 0 and leave out a class without annotations (Roboflow's root)",
        "write the ids of categories[]: the root class takes one, though it has no annotation",
        cures.categories_by_order(0, annotated=True),
    ),
    (
        "category ids count from 1 and leave out a class without annotations (Roboflow's root)",
        "write the ids of categories[]: the root class takes one, though it has no annotation",
        cures.categories_by_order(1, annotated=True),
    ),
    (
        "category ids mean other classes than in the annotations; the names agree",
        "map category ids by name",
        cures.categories_by_name,
    ),
    *SHAPES,
    (
        "masks are not of their image's size",
        "resize masks to the original image before encoding them",
        mask_cures.masks_resized,
    ),
    (
        "results are for pictures turned by their EXIF tag (a quarter counterclockwise mends them)",
        _TURNED,
        mask_cures.turned(1),
    ),
    (
        "results are for pictures turned by their EXIF tag (a quarter clockwise mends them)",
        _TURNED,
        mask_cures.turned(3),
    ),
    (
        "results stand several times in the file",
        "write each once (was a file appended to, or a padded last batch kept?)",
        cures.once_each,
    ),
)
_ANNOTATIONS = (
    (
        "every annotation is a crowd region (iscrowd 1), so that nothing is to be found",
        "write iscrowd 0 for single objects (CVAT's mask export marks them all)",
        cures.no_crowds,
    ),
    (
        "annotation ids stand more than once",
        "number annotations 1, 2, 3, ... through the whole file (were files joined?)",
        cures.numbered_anew,
    ),
    *SHAPES,
)


def _cures(rows: tuple[tuple[str, str, Apply], ...], where: str = "") -> Iterator[Cure]:
    for problem, advice, apply in rows:
        yield Cure(problem=f"{where}{problem}", advice=advice, apply=apply)


RESULT_CURES = tuple(_cures(_RESULTS))
ANNOTATION_CURES = tuple(_cures(_ANNOTATIONS, "annotations: "))
