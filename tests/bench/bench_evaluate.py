"""COCO-val-sized scoring against plain pycocotools, in one run: time and peak memory side by side.

    python tests/bench/bench_evaluate.py --images 5000

Each contender runs in a process of its own, from the two JSON files to the twelve numbers. Peak
memory is the largest sum of resident sets over the process and its workers.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from pycocotools import mask as mask_api

HEIGHT, WIDTH, CLASSES = 480, 640, 80
ANNOTATIONS_PER_IMAGE, DETECTIONS_PER_IMAGE = 7.2, 100

PLAIN = """
import sys
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
truth = COCO(sys.argv[1])
found = truth.loadRes(sys.argv[2])
if sys.argv[3] == "segm":  # a mask's size is its own area, not its box's
    for annotation in found.dataset["annotations"]:
        annotation["area"] = float(mask.area(annotation["segmentation"]))
run = COCOeval(truth, found, sys.argv[3])
run.evaluate(); run.accumulate(); run.summarize()
print("RESULT", run.stats.tolist())
"""
OURS = """
import sys
from boxdepth.evaluate import evaluate_coco
report = evaluate_coco(sys.argv[2], sys.argv[1], iou_types=(sys.argv[3],), workers=2)
numbers = getattr(report, sys.argv[3]).to_json()
numbers.pop("per_class")
print("RESULT", list(numbers.values()))
"""


def blob(rng: np.random.Generator, x: float, y: float, w: float, h: float) -> list[float]:
    """A wobbly outline of about the given box, as a COCO polygon."""
    angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radius = 0.5 * (1 + 0.12 * np.sin(3 * angles + rng.uniform(0, 6)) + rng.normal(0, 0.02, 28))
    xs = np.clip(x + w / 2 + w * radius * np.cos(angles), 0, WIDTH)
    ys = np.clip(y + h / 2 + h * radius * np.sin(angles), 0, HEIGHT)
    return np.stack((xs, ys), axis=1).round(2).ravel().tolist()


def make_set(folder: Path, images: int, seed: int = 0) -> tuple[Path, Path]:
    """Annotations and results with COCO's sizes: 41 % small, 34 % medium, 24 % large."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, CLASSES + 1) ** 0.8
    popularity /= popularity.sum()
    annotations, results = [], []
    for image in range(1, images + 1):
        shapes = []
        for _ in range(rng.poisson(ANNOTATIONS_PER_IMAGE)):
            side = float(np.exp(rng.uniform(np.log(10), np.log(330))))
            w, h = side * rng.uniform(0.7, 1.4), side * rng.uniform(0.7, 1.4)
            x, y = rng.uniform(0, max(WIDTH - w, 1)), rng.uniform(0, max(HEIGHT - h, 1))
            shapes.append((x, y, w, h, int(rng.choice(CLASSES, p=popularity)) + 1))
        for x, y, w, h, category in shapes:
            outline = blob(rng, x, y, w, h)
            rle = mask_api.merge(mask_api.frPyObjects([outline], HEIGHT, WIDTH))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": category,
                "segmentation": [outline], "area": float(mask_api.area(rle)),
                "bbox": mask_api.toBbox(rle).tolist(), "iscrowd": 0,
            })  # fmt: skip
        results.extend(detections(rng, image, shapes, popularity))
    truth = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)],
    }
    paths = folder / "annotations.json", folder / "results.json"
    for path, document in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(document))
    return paths


def detections(rng, image, shapes, popularity) -> list[dict]:
    """A hundred: near misses of the annotations, near misses of another class, and noise."""
    found = []
    for _ in range(DETECTIONS_PER_IMAGE):
        if shapes and rng.random() < 0.5:
            x, y, w, h, category = shapes[rng.integers(len(shapes))]
            scale = np.exp(rng.normal(0, 0.15, 2))
            x, y = x + rng.normal(0, 0.1) * w, y + rng.normal(0, 0.1) * h
            w, h = w * scale[0], h * scale[1]
            score = float(rng.beta(4, 2))
        else:
            side = float(np.exp(rng.uniform(np.log(10), np.log(330))))
            w, h = side, side
            x, y = rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h)
            category, score = int(rng.choice(CLASSES, p=popularity)) + 1, float(rng.beta(1, 5))
        rle = mask_api.merge(mask_api.frPyObjects([blob(rng, x, y, w, h)], HEIGHT, WIDTH))
        found.append({
            "image_id": image, "category_id": category, "score": score,
            "bbox": mask_api.toBbox(rle).tolist(),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        })  # fmt: skip
    return found


def watched(code: str, *arguments: str) -> tuple[float, float, float, list[float]]:
    """Seconds by the clock and of processors, peak memory in GiB, and the numbers."""
    start, used = time.perf_counter(), cpu_seconds()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, resident(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = child.communicate()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    line = next(line for line in output.splitlines() if line.startswith("RESULT"))
    return seconds, cpu_seconds() - used, peak / 1024**3, json.loads(line.removeprefix("RESULT "))


def cpu_seconds() -> float:
    """Processor time of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def resident(pid: int) -> int:
    """Bytes a process and its children hold; shared pages are counted once (USS) for children."""
    try:
        parent = psutil.Process(pid)
        children = parent.children(recursive=True)
        return parent.memory_info().rss + sum(c.memory_full_info().uss for c in children)
    except psutil.Error:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="keep the set here, reuse it if there")
    parser.add_argument("--only-ours", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        paths = folder / "annotations.json", folder / "results.json"
        if not paths[1].exists():
            paths = make_set(folder, options.images)
        sizes = [f"{path.stat().st_size / 1e6:.0f} MB" for path in paths]
        print(f"{options.images} images, annotations {sizes[0]}, results {sizes[1]}")
        print("| shape | contender | seconds | CPU seconds | peak GiB | AP | ratios to ours |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for shape in ("bbox", "segm"):
            compare(shape, [str(path) for path in paths], only_ours=options.only_ours)


def compare(shape: str, paths: list[str], *, only_ours: bool) -> None:
    """Two rows of the table, and a complaint if the numbers differ."""
    ours = watched(OURS, *paths, shape)
    plain = ours if only_ours else watched(PLAIN, *paths, shape)
    for name, (seconds, cpu, peak, numbers) in (("pycocotools", plain), ("boxdepth", ours)):
        ratios = " / ".join(
            f"{mine / own:.1f} x" for mine, own in zip((seconds, cpu, peak), ours[:3], strict=True)
        )
        print(
            f"| {shape} | {name} | {seconds:.1f} | {cpu:.1f} | {peak:.2f} | {numbers[0]:.6f} "
            f"| {ratios} |",
            flush=True,
        )
    difference = max(abs(a - b) for a, b in zip(plain[3], ours[3], strict=True))
    print(f"largest difference of the twelve numbers ({shape}): {difference:.1e}")


if __name__ == "__main__":
    main()
