"""Instance maps: 16-bit PNG of the image's size, a number for each object of the image.

Objects are numbered from 1 in the order of `objects.csv`; 0 is background. Where objects overlap,
those that find no room go to a second map `<name>.2.png` and so on, so that no pixel is lost.
"""

import numpy as np
from PIL import Image

from boxdepth.evaluate.export.job import Found, Job, Written, side_names
from boxdepth.evaluate.results import DataError

MOST = 2**16 - 1


def write(job: Job) -> Written:
    """One map an image, more where objects overlap."""
    written = {}
    files = side_names(job, "")
    for image, rows in job.by_image():
        if len(rows) > MOST:
            raise DataError(
                f"image {job.items.images[image]['id']}: {len(rows)} objects, a 16-bit map holds "
                f"{MOST}. Use --to coco."
            )
        maps = [np.zeros(job.size(image), dtype=np.uint16)]
        for number, row in enumerate(rows, start=1):
            mask = job.items.masks.pixels(row)
            layer = next((k for k, taken in enumerate(maps) if not taken[mask].any()), len(maps))
            if layer == len(maps):
                maps.append(np.zeros(job.size(image), dtype=np.uint16))
            maps[layer][mask] = number
            written[row] = _name(files[image], layer)
        for layer, pixels in enumerate(maps):
            path = job.out / _name(files[image], layer)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return written


def read(job: Job) -> Found:
    """By number."""
    files = side_names(job, "")
    for image, rows in job.by_image():
        layers: list[np.ndarray] = []
        while (path := job.out / _name(files[image], len(layers))).is_file():
            with Image.open(path) as picture:
                layers.append(np.asarray(picture))
        for number, row in enumerate(rows, start=1):
            yield row, np.any([layer == number for layer in layers], axis=0)


def _name(stem: str, layer: int) -> str:
    return f"{stem}.png" if layer == 0 else f"{stem}.{layer + 1}.png"
