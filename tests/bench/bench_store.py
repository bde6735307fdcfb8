"""Random reads of image, depth and boxes beside the cost of decoding, and beside plain zarr.

    python tests/bench/bench_store.py

It prints ratios; the rounds of the ways to read are interleaved, so that the machine's moods hit
all of them. With ``--store`` it reads a store of yours instead of a made-up one.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from PIL import Image, ImageFilter

from boxdepth.depthgen.store import (
    Category,
    ImageRecord,
    Store,
    decode_image,
    open_store,
    write_store,
)

IMAGES, ROUNDS, PER_ROUND = 96, 12, 64


def _photo(random: np.random.Generator) -> bytes:
    """A 480x640 JPEG of about 100 kB: smooth structure with some grain, as photographs have."""
    coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    smooth = np.array(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
    grainy = np.clip(smooth + random.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grainy).filter(ImageFilter.GaussianBlur(0.6)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _depth(random: np.random.Generator) -> np.ndarray:
    coarse = Image.fromarray(random.random((24, 24), dtype=np.float32))
    smooth = np.array(coarse.resize((384, 384), Image.Resampling.BICUBIC))
    return smooth + random.normal(0, 1e-3, smooth.shape).astype(np.float32)


def make_store(path: Path) -> Store:
    """96 photographs of 640x480 with seven boxes and a 384x384 depth map each."""
    random = np.random.default_rng(0)
    boxes = np.array([[10, 10, 100, 100]] * 7, dtype=np.float32)
    records = [
        ImageRecord(
            id=i, name=f"{i}.jpg", path=None, height=480, width=640, boxes_xyxy=boxes,
            labels=np.zeros(7, np.int64), box_ids=np.arange(7) + 7 * i,
            crowd=np.zeros(7, bool), areas=np.ones(7, np.float32),
        )
        for i in range(IMAGES)
    ]  # fmt: skip
    write_store(
        path,
        records,
        images=[_photo(random) for _ in range(IMAGES)],
        depth=[_depth(random) for _ in range(IMAGES)],
        categories=[Category(id=1, name="thing")],
        unit=32,
    )
    return open_store(path)


def compare_readers(store: Store) -> None:
    """Our reader and zarr-python beside decoding alone."""
    files = [store.image_bytes(i) for i in range(len(store))]
    group = zarr.open_group(store.path, mode="r")
    data, q = group["image/data"], group["depth/q"]
    starts, sizes = group["image/start"][:], group["image/nbytes"][:]

    def decode_only(i: int) -> None:
        decode_image(files[i], expected_size=None, name="")

    def ours(i: int) -> None:
        store.image(i)
        store.inverse_depth(i)
        store.boxes(i)

    def plain_zarr(i: int) -> None:
        raw = data[int(starts[i]) : int(starts[i]) + int(sizes[i])].tobytes()
        decode_image(raw, expected_size=None, name="")
        np.asarray(q[i])

    ways: dict[str, Callable[[int], None]] = {
        "decode only": decode_only,
        "our reader (image, normalised depth, boxes)": ours,
        "zarr-python (image, raw depth)": plain_zarr,
    }
    seconds = _interleaved(ways, len(store))
    base = seconds["decode only"]
    print(f"\n{statistics.mean(len(f) for f in files) / 1e3:.0f} kB a JPEG, medians of {ROUNDS}:")
    for name, value in seconds.items():
        print(f"{1e3 * value:7.2f} ms/image  {base / value:5.2f} of decode only  {name}")


def measure_parts(store: Store) -> None:
    """What each part of a read costs."""
    ways: dict[str, Callable[[int], None]] = {
        "image bytes": lambda i: store.image_bytes(i) and None,
        "quantised depth": lambda i: store.quantised_depth(i) is None and None,
        "normalised inverse depth": lambda i: store.inverse_depth(i) is None and None,
        "boxes": lambda i: store.boxes(i) and None,
    }
    print()
    for name, value in _interleaved(ways, len(store)).items():
        print(f"{1e3 * value:7.3f} ms/image  {name}")


def _interleaved(ways: dict[str, Callable[[int], None]], images: int) -> dict[str, float]:
    random = np.random.default_rng(1)
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        order = random.permutation(images)[:PER_ROUND].tolist()
        for name, read in ways.items():
            started = time.perf_counter()
            for i in order:
                read(i)
            rounds[name].append((time.perf_counter() - started) / len(order))
    return {name: statistics.median(values) for name, values in rounds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a finished store")
    given = parser.parse_args().store
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(given) if given else make_store(Path(folder) / "made-up.zarr")
        compare_readers(store)
        measure_parts(store)


if __name__ == "__main__":
    main()
