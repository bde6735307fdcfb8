"""COCO-val-sized scoring beside the fastest evaluators alone, interleaved in one run.

    python tests/bench/bench_evaluate.py --images 5000                 # boxes and masks
    python tests/bench/bench_evaluate.py --images 5000 --detections 1000 --shapes bbox
    python tests/bench/bench_evaluate.py --images 500

Each contender runs in a process of its own, from the two JSON files to the twelve numbers; `start`
is a process that imports NumPy and ends. Seconds of processors (all threads, so that a busy machine
may be used) and of the clock are medians of the rounds; peak memory is the process' own.
pycocotools runs once.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

HEIGHT, WIDTH, CLASSES = 480, 640, 80
ANNOTATIONS_PER_IMAGE = 7.2

# What every contender prints: its numbers, then processor seconds and peak memory.
ENDING = """
import json, resource
used = resource.getrusage(resource.RUSAGE_SELF)
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
print("RESULT", json.dumps([numbers, used.ru_utime + used.ru_stime, peak / 2**20]))
"""
START = "import numpy\nnumbers = []" + ENDING
PYCOCOTOOLS = (
    """
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
numbers = run.stats.tolist()
"""
    + ENDING
)
ULTRAFAST = (
    """
import sys
from ultrafast_pycocotools.coco import COCO
from ultrafast_pycocotools.cocoeval import COCOeval
truth = COCO(sys.argv[1])
run = COCOeval(truth, truth.loadRes(sys.argv[2]), sys.argv[3])
run.evaluate(); run.accumulate(); run.summarize()
numbers = list(run.stats)
"""
    + ENDING
)
HOTCOCO = (
    """
import sys
from hotcoco import COCO, COCOeval
truth = COCO(sys.argv[1])
run = COCOeval(truth, truth.load_res(sys.argv[2]), sys.argv[3])
run.evaluate(); run.accumulate(); run.summarize()
numbers = list(run.stats)
"""
    + ENDING
)
OURS = (
    """
import sys
from boxdepth.evaluate import evaluate_coco
report = evaluate_coco(sys.argv[2], sys.argv[1], iou_types=(sys.argv[3],))
found = getattr(report, sys.argv[3]).to_json()
found.pop("per_class")
numbers = list(found.values())
"""
    + ENDING
)
FAST = {"hotcoco alone": HOTCOCO, "ultrafast-pycocotools alone": ULTRAFAST}


def blob(rng: np.random.Generator, x: float, y: float, w: float, h: float) -> list[float]:
    """A wobbly outline of about the given box, as a COCO polygon."""
    angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radius = 0.5 * (1 + 0.12 * np.sin(3 * angles + rng.uniform(0, 6)) + rng.normal(0, 0.02, 28))
    xs = np.clip(x + w / 2 + w * radius * np.cos(angles), 0, WIDTH)
    ys = np.clip(y + h / 2 + h * radius * np.sin(angles), 0, HEIGHT)
    return np.stack((xs, ys), axis=1).round(2).ravel().tolist()


def make_set(folder: Path, images: int, per_image: int = 100, seed: int = 0) -> tuple[Path, Path]:
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
        results.extend(detections(rng, image, shapes, popularity, per_image))
    truth = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)],
    }
    paths = folder / "annotations.json", folder / "results.json"
    for path, document in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(document))
    return paths


def detections(rng, image, shapes, popularity, per_image) -> list[dict]:
    """Near misses of the annotations, near misses of another class, and noise."""
    found = []
    for _ in range(per_image):
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


def run(code: str, *arguments: str) -> tuple[list[float], tuple[float, float], float]:
    """The numbers, seconds (of processors, of the clock) and peak GiB of one contender."""
    begin = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    clock = time.perf_counter() - begin
    line = next(line for line in child.stdout.splitlines() if line.startswith("RESULT"))
    numbers, seconds, peak = json.loads(line.removeprefix("RESULT "))
    return numbers, (seconds, clock), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="an image")
    parser.add_argument("--shapes", nargs="+", default=["bbox", "segm"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the set here, reuse it if there")
    parser.add_argument("--without-pycocotools", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        paths = folder / "annotations.json", folder / "results.json"
        if not paths[1].exists():
            paths = make_set(folder, options.images, options.detections)
        sizes = [f"{path.stat().st_size / 1e6:.0f} MB" for path in paths]
        print(f"{options.images} images, annotations {sizes[0]}, results {sizes[1]}")
        print(
            "| shape | contender | CPU s | to the fastest | clock s | to the fastest | GiB | AP |"
        )
        print("| --- " * 8 + "|")
        for shape in options.shapes:
            arguments = (*map(str, paths), shape)
            compare(arguments, options.rounds, plain=not options.without_pycocotools)


def compare(arguments: tuple[str, ...], rounds: int, *, plain: bool) -> None:
    """Rows of the table, and how far the numbers are apart."""
    contenders = {"start": START, **FAST, "boxdepth": OURS}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    numbers, peaks = {}, {}
    for _ in range(rounds):
        for name, code in contenders.items():
            numbers[name], used, peaks[name] = run(code, *arguments)
            seconds[name].append(used)
    if plain:
        numbers["pycocotools"], used, peaks["pycocotools"] = run(PYCOCOTOOLS, *arguments)
        seconds["pycocotools"] = [used]
    medians = {name: np.median(used, axis=0) for name, used in seconds.items()}
    fastest = np.min([medians[name] for name in FAST], axis=0)
    for name, median in medians.items():
        times = zip(median, median / fastest, strict=True)
        columns = [f"{own:.2f} | {ratio:.2f} x" for own, ratio in times]
        ap = f"{numbers[name][0]:.6f}" if numbers[name] else ""
        row = (arguments[-1], name, *columns, f"{peaks[name]:.2f}", ap)
        print(f"| {' | '.join(row)} |", flush=True)
    reference = numbers["pycocotools"] if plain else numbers["hotcoco alone"]
    gap = max(abs(a - b) for a, b in zip(reference, numbers["boxdepth"], strict=True))
    print(f"largest difference of the twelve numbers ({arguments[-1]}): {gap:.1e}")


if __name__ == "__main__":
    main()
