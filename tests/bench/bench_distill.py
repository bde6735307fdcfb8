"""What self-distillation costs: its step beside the plain one, and the matching's share of it.

    python tests/bench/bench_distill.py --preset scenes_tiny --size 192x256 --images 8
    python tests/bench/bench_distill.py --preset coco_r50_1x --size 640x853 --teacher 800
    python tests/bench/bench_distill.py --run quickstart/run --store stores/scenes-train2017.zarr

Random weights whose classifier fires everywhere, so that NMS and matching have as much
to do as they ever can: 100 candidates an image.  Or the network of a run on the pictures that it
learnt, as in the second half of a training.  Steps of the two kinds take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig, presets
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.distill import matchers
from boxdepth.trainer.engine.allocator import keep_freed_memory
from boxdepth.trainer.engine.checkpoint import find_checkpoint, load_checkpoint
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.health import NonFiniteGuard
from boxdepth.trainer.engine.update import Learner, learn_step
from boxdepth.trainer.structures import Batch

CLASSES = 80
matching_seconds: list[float] = []


def timed(function: Callable, synchronize: Callable[[], None]) -> Callable:
    """The function, noting how long each call takes."""

    def call(*args: object, **options: object) -> object:
        synchronize()
        began = time.perf_counter()
        result = function(*args, **options)
        synchronize()
        matching_seconds.append(time.perf_counter() - began)
        return result

    return call


def make_batch(*, images: int, boxes: int, size: tuple[int, int]) -> Batch:
    """Noise with boxes of all sizes."""
    height, width = (-(-side // 32) * 32 for side in size)
    corner = torch.rand(images * boxes, 2) * torch.tensor([0.6 * size[1], 0.6 * size[0]])
    extent = torch.tensor([size[1], size[0]]) * (0.05 + 0.35 * torch.rand(images * boxes, 2))
    xyxy = torch.cat([corner, corner + extent], dim=1)
    valid = torch.zeros(images, height, width, dtype=torch.bool)
    valid[:, : size[0], : size[1]] = True
    ramp = torch.linspace(0, 255, height)[None, None, :, None].expand(images, 1, height, width)
    return Batch(
        images=torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8)
        * valid[:, None],
        sizes=torch.tensor([size] * images),
        valid=valid,
        inverse_depth=ramp.contiguous(),
        depth_valid=torch.ones(images, dtype=torch.bool),
        boxes_xyxy=xyxy,
        labels=torch.randint(0, CLASSES, (images * boxes,)),
        image_index=torch.arange(images).repeat_interleave(boxes),
        centers_xy=(xyxy[:, :2] + xyxy[:, 2:]) / 2,
        masks=None,
        has_mask=torch.zeros(images * boxes, dtype=torch.bool),
        image_ids=tuple(range(images)),
    )


def make_learner(config: RunConfig, device: torch.device) -> Learner:
    """A learner whose classifier fires everywhere."""
    learner = build.build_learner(config, device, World())
    with torch.no_grad():
        learner.model.head.class_logits.bias.fill_(0.0)
        learner.model.head.ltrb.bias.fill_(2.0)
    return learner


def firing_everywhere(
    asked: argparse.Namespace, device: torch.device
) -> tuple[dict[str, Learner], list[Batch]]:
    """Both learners with random weights, and a batch of noise."""
    height, width = (int(side) for side in asked.size.split("x"))
    torch.manual_seed(0)
    batch = make_batch(images=asked.images, boxes=asked.boxes, size=(height, width))
    base = apply_overrides(
        presets.PRESETS[asked.preset](),
        [
            f"model.num_classes={CLASSES}",
            f"data.batch_size={asked.images}",
            f"precision={asked.precision}",
            f"distillation.teacher_short_side={asked.teacher}",
            "distillation.start=0",
            "losses.warmup_iterations=1",
            "optimizer.learning_rate=1e-6",
        ],
    )
    learners = {
        name: make_learner(apply_overrides(base, [f"distillation.method={name}"]), device)
        for name in ("off", "depth_matching")
    }
    return learners, [batch]


def learnt(
    asked: argparse.Namespace, device: torch.device
) -> tuple[dict[str, Learner], list[Batch]]:
    """Both learners with a run's weights, teacher too, and batches of a store."""
    checkpoint = load_checkpoint(find_checkpoint(asked.run))
    run = RunConfig.model_validate(checkpoint.run["config"])
    data = build.training_set(
        apply_overrides(run, ["distillation.method=depth_matching"]), asked.store
    )
    learners = {}
    for name in ("off", "depth_matching"):
        config = apply_overrides(
            run,
            [
                f"distillation.method={name}",
                f"distillation.teacher_short_side={asked.teacher}",
                "distillation.start=0",
                "optimizer.learning_rate=1e-6",
            ],
        )
        learners[name] = build.build_learner(config, device, World())
        learners[name].model.load_state_dict(checkpoint.model)
        if (teacher := learners[name].teacher) is not None:
            teacher.module.load_state_dict(checkpoint.model)
    loader = build.batch_loader(run, data, World())
    return learners, [batch for (batch,) in loader.steps(0, asked.steps + 2)]


def main() -> None:
    """Print both step times and the shares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="scenes_tiny")
    parser.add_argument("--size", default="192x256")
    parser.add_argument("--teacher", type=int, default=208)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--boxes", type=int, default=8, help="of each image")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--run", type=Path, help="a network that has learnt")
    parser.add_argument("--store", type=Path, help="what it learnt from")
    parser.add_argument("--first", type=int, default=0, help="number of the first step")
    asked = parser.parse_args()
    keep_freed_memory()  # as `trainer fit`
    device = torch.device(asked.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    matchers.match_by_depth = timed(matchers.match_by_depth, wait)
    prepare = learnt if asked.run else firing_everywhere
    learners, batches = prepare(asked, device)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in learners}
    for step in range(asked.steps + 2):
        if step == 2:
            matching_seconds.clear()
        for name, learner in learners.items():
            batch = batches[step % len(batches)]
            wait()
            began = time.perf_counter(), time.process_time()
            numbers = learn_step(learner, asked.first + step, [batch], guard=NonFiniteGuard())
            wait()
            assert numbers, "the step was skipped"
            seconds[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    (plain, plain_cpu), (distilled, distilled_cpu) = (
        tuple(statistics.median(kind) for kind in zip(*values[2:], strict=True))
        for values in seconds.values()
    )
    per_step = sum(matching_seconds) / asked.steps
    shown = f"{asked.images} images of {asked.size}"
    print(f"{asked.run or asked.preset}, {asked.store or shown}, teacher {asked.teacher}, {device}")
    print(f"plain step         {1000 * plain:9.1f} ms   CPU {1000 * plain_cpu:9.1f} ms")
    print(
        f"distillation step  {1000 * distilled:9.1f} ms   CPU {1000 * distilled_cpu:9.1f} ms"
        f"   {distilled / plain:.2f} x, CPU {distilled_cpu / plain_cpu:.2f} x"
    )
    print(
        f"matching           {1000 * per_step:9.1f} ms   {100 * per_step / distilled:.2f} % of it"
    )


if __name__ == "__main__":
    main()
