"""Scenes a second on one core, and the embedded depth model's images a second on two.

    OMP_NUM_THREADS=1 python tests/bench/bench_sample.py

CPU seconds of this process are counted for the scenes, so neighbours on the machine disturb little.
Prints each part beside the whole, and JPEG beside PNG.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from boxdepth.depthgen.datasets.sample import Scene, render_scene, scene_seed, write_sample

SIZE = (192, 256)


def cpu_milliseconds(work: Callable[[], object], repeats: int) -> float:
    """CPU milliseconds a call, after one call to warm up."""
    work()
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats * 1e3


def encoded(scenes: list[Scene], **options: object) -> tuple[float, float]:
    """CPU milliseconds and kilobytes an image in one format."""
    sizes = []

    def encode() -> None:
        for scene in scenes:
            buffer = io.BytesIO()
            Image.fromarray(scene.image).save(buffer, **options)
            sizes.append(buffer.tell())

    spent = cpu_milliseconds(encode, 3) / len(scenes)
    return spent, float(np.mean(sizes)) / 1e3


def bench_scenes(count: int) -> None:
    """Print drawing and writing speeds."""
    indices = iter(range(10**9))
    drawing = cpu_milliseconds(
        lambda: render_scene(scene_seed(0, "train", next(indices)), SIZE), count
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_sample(Path(folder) / "scenes", train=count, val=1, size=SIZE)
        writing = (time.process_time() - start) / (count + 1) * 1e3
    print(f"draw                {drawing:6.2f} ms   {1e3 / drawing:6.0f} scenes/s")
    print(f"draw and write COCO {writing:6.2f} ms   {1e3 / writing:6.0f} scenes/s")
    scenes = [render_scene(scene_seed(0, "val", index), SIZE) for index in range(30)]
    jpeg, jpeg_size = encoded(scenes, format="JPEG", quality=95, subsampling=0)
    png, png_size = encoded(scenes, format="PNG", compress_level=1)
    print(f"JPEG 95             {jpeg:6.2f} ms   {jpeg_size:6.1f} KB")
    print(
        f"PNG level 1         {png:6.2f} ms   {png_size:6.1f} KB   "
        f"{png / jpeg:.1f}x the time, {png_size / jpeg_size:.1f}x the bytes"
    )


def bench_model(batch: int) -> None:
    """Print the embedded model's speed with one and two threads, fp32 and bfloat16."""
    from boxdepth.depthgen.models import find_model
    from boxdepth.depthgen.predictor import load_predictor

    model = load_predictor(find_model("dpt-scenes-tiny"), device="cpu").model
    pixels = torch.rand(batch, 3, 192, 192)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for half in (False, True):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                model(pixels)
                start = time.perf_counter()
                for _ in range(3):
                    model(pixels)
            speed = 3 * batch / (time.perf_counter() - start)
            name = "bf16" if half else "fp32"
            print(f"dpt-scenes-tiny {name}, {threads} threads, batch {batch}: {speed:.0f} images/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    bench_scenes(arguments.scenes)
    bench_model(arguments.batch)
