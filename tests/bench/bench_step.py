"""What a BoxInst training step and an inference cost, and where (condinst.md, section 10).

    python tests/bench/bench_step.py [--size 320x480] [--repeats 5] [--bf16] [--compile]

R-50-FPN with the recorded recipe's weights, two images, eight boxes each.  Next to our mask part
(everything beyond backbone, FPN and FCOS head) runs a textbook form of it on the same inputs:
similarities repeated per box, features copied per instance into one grouped convolution, eight
unfolded neighbours.
"""

import argparse
import importlib.util
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model
from boxdepth.trainer.criterion.rules import Losses, LossRules
from boxdepth.trainer.criterion.terms import MaskTargets, StudentPass, compute_losses
from boxdepth.trainer.geometry.boxes import raster_centers
from boxdepth.trainer.geometry.grid import cell_locations
from boxdepth.trainer.geometry.resize import aligned_bilinear
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.controller import ParametersOnDemand
from boxdepth.trainer.model.detections import detect
from boxdepth.trainer.model.dynamic_mask_head import mask_outputs, split_params
from boxdepth.trainer.model.rules import DetectionLimits
from boxdepth.trainer.model.weights import load_adelaidet
from boxdepth.trainer.predict.masks import predict_masks
from boxdepth.trainer.structures import Batch, DenseOutputs, Positives, Targets
from boxdepth.trainer.targets.assign import assign_targets
from boxdepth.trainer.targets.mask_grid import lab_of_cells, mask_grid
from boxdepth.trainer.targets.pairs import trusted_pairs
from boxdepth.trainer.targets.rules import Assignment, PairRule, Sampling
from boxdepth.trainer.targets.sampling import select_positives

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
STEP = 20_000
RULES = LossRules(losses=Losses(consistency=0, depth=0))
RECORDED_LOSSES = {
    "classification": 1.26406,
    "box": 0.70201,
    "quality": 0.69049,
    "projection": 0.94292,
    "color": 0.49527,
}
"""At 320x480, from condinst.md, section 10."""

REFERENCE_SECONDS = {
    (320, 480): {"step": 3.68, "inference": 0.64, "step RSS GB": 2.27},
    (640, 960): {"step": 17.4, "inference": 2.52, "step RSS GB": 5.27},
}
"""The reference on an idle 2-core machine of the same size, 2 threads, wall clock."""

REFERENCE_CPU_SECONDS = {(320, 480): {"step": 5.7, "inference": 1.07, "step RSS GB": 2.27}}
"""The same with one thread, in CPU seconds, which other people's load disturbs less."""


@dataclass(slots=True)
class Clock:
    """Seconds by name, of the wall or of the CPU."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    now: Callable[[], float] = time.perf_counter

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds.setdefault(name, []).append(self.now() - start)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def load_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_model(recipe: ModuleType) -> CondInst:
    model = build_model(
        config.Model(
            num_classes=80,
            backbone=config.Backbone(stride_in_1x1=True, bgr=True, pixel_std=(1.0, 1.0, 1.0)),
            mask_head=config.MaskHead(depth="off"),
        )
    )
    weights = {}
    for line in (GOLDEN / "state_dict_names.txt").read_text().splitlines()[1:]:
        name, shape, *_ = line.split("\t")
        sizes = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
        value = recipe.tensor_for(name, sizes)
        if value is not None:
            weights[name] = torch.from_numpy(value)
    load_adelaidet(model, weights, source="recipe")
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def make_batch(recipe: ModuleType, height: int, width: int, images: int = 2) -> Batch:
    drawn = [recipe.image(1000 + i, height, width)[..., ::-1].copy() for i in range(images)]
    boxes, labels = zip(
        *(recipe.boxes(2000 + i, 8, height, width, 80) for i in range(images)), strict=True
    )
    boxes_xyxy = torch.from_numpy(np.concatenate(boxes))
    valid = torch.ones(images, height, width, dtype=torch.bool)
    valid[:, height - 10 :] = False
    return Batch(
        images=torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous(),
        sizes=torch.tensor([[height, width]] * images),
        valid=valid,
        inverse_depth=torch.zeros(images, 1, height, width),
        depth_valid=torch.zeros(images, dtype=torch.bool),
        boxes_xyxy=boxes_xyxy,
        labels=torch.from_numpy(np.concatenate(labels)),
        image_index=torch.arange(images).repeat_interleave(8),
        centers_xy=torch.from_numpy(raster_centers(boxes_xyxy.numpy())),
        masks=None,
        has_mask=torch.zeros(8 * images, dtype=torch.bool),
        image_ids=tuple(range(images)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the mask part starts from: leaves, so that its backward pass ends there."""

    levels: list[Tensor]
    outputs: DenseOutputs


def targets_and_positives(outputs: DenseOutputs, batch: Batch) -> tuple[Targets, Positives]:
    targets = assign_targets(batch.ground_truth, outputs.level_shapes, Assignment(), num_classes=80)
    return targets, select_positives(targets, outputs, Sampling(), num_boxes=len(batch.labels))


def mask_part(model: CondInst, batch: Batch, inputs: Inputs, clock: Clock) -> Tensor:
    """Targets, mask branch, dynamic head, pairs and all losses: ours."""
    with clock.time("targets"):
        targets, positives = targets_and_positives(inputs.outputs, batch)
    with clock.time("mask branch"):
        outputs = replace(inputs.outputs, mask_features=model.mask_branch(inputs.levels))
    with clock.time("dynamic head"):
        masks = mask_outputs(outputs.mask_features, positives, model.mask_head)
    with clock.time("pairs"):
        grid = mask_grid(batch)
        learns = MaskTargets(grid=grid, sources=trusted_pairs(grid, PairRule()))
    with clock.time("losses"):
        student = StudentPass(outputs=outputs, targets=targets, positives=positives, masks=masks)
        terms = compute_losses(student, batch, learns, rules=RULES, step=STEP)
    return terms.total()


def textbook_mask_part(model: CondInst, batch: Batch, inputs: Inputs, clock: Clock) -> Tensor:
    """The same numbers the way the papers' pseudo code would have them."""
    targets, positives = targets_and_positives(inputs.outputs, batch)
    outputs = replace(inputs.outputs, mask_features=model.mask_branch(inputs.levels))
    logits = _grouped_head(outputs.mask_features, positives, model)
    similar, bitmaps = _similarity_per_box(batch)
    scores = logits.sigmoid()
    own = bitmaps[positives.box_index]
    projection = _dice(scores.amax(2), own.amax(2)) + _dice(scores.amax(3), own.amax(3))
    weights = (similar[positives.box_index] >= 0.3).float() * own
    pairwise = _pairwise_unfolded(logits)
    color = (pairwise * weights).sum() / weights.sum().clamp(min=1)
    student = StudentPass(
        outputs=outputs,
        targets=targets,
        positives=positives,
        masks=mask_outputs(outputs.mask_features[:, :, :1, :1], positives, model.mask_head),
    )
    only_boxes = LossRules(losses=Losses(projection=0, color=0, consistency=0, depth=0))
    learns = MaskTargets(grid=mask_grid(batch))
    detection = compute_losses(student, batch, learns, rules=only_boxes, step=STEP)
    return detection.total() + projection.mean() + color


def _grouped_head(features: Tensor, positives: Positives, model: CondInst) -> Tensor:
    n, (height, width) = len(positives.level), features.shape[-2:]
    weights, biases = split_params(positives.params, model.mask_head)
    pixels = cell_locations((height, width), stride=8)
    sizes = torch.tensor(model.mask_head.level_sizes)[positives.level]
    relative = positives.location_xy[:, None] - pixels[None]
    relative = relative.permute(0, 2, 1) / sizes[:, None, None]
    copies = features[positives.image_index].flatten(2)
    x = torch.cat([relative, copies], dim=1).reshape(1, -1, height, width)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        kernel = weight.flatten(0, 1)[:, :, None, None]
        x = F.conv2d(x, kernel, bias.flatten(), groups=n)
        x = F.relu(x) if i < 2 else x
    return aligned_bilinear(x.reshape(n, 1, height, width), 2)


def _similarity_per_box(batch: Batch) -> tuple[Tensor, Tensor]:
    lab = lab_of_cells(batch.images)
    similar = torch.exp(-0.5 * (lab[:, :, None] - _neighbours(lab)).norm(dim=1))
    valid = batch.valid[:, 2::4, 2::4].float()
    similar = similar * _neighbours(valid[:, None])[:, 0]
    bitmaps = torch.zeros(len(batch.labels), 1, *batch.images.shape[-2:])
    for bitmap, (x1, y1, x2, y2) in zip(bitmaps, batch.boxes_xyxy.tolist(), strict=True):
        bitmap[0, int(y1) : int(y2 + 1), int(x1) : int(x2 + 1)] = 1
    return similar[batch.image_index], bitmaps[..., 2::4, 2::4]


def _neighbours(maps: Tensor) -> Tensor:
    """[b c 8 h w]: the unfolded copies."""
    b, c, height, width = maps.shape
    unfolded = F.unfold(maps, 3, padding=2, dilation=2).reshape(b, c, 9, height, width)
    return torch.cat([unfolded[:, :, :4], unfolded[:, :, 5:]], dim=2)


def _pairwise_unfolded(logits: Tensor) -> Tensor:
    inside, outside = F.logsigmoid(logits), F.logsigmoid(-logits)
    same_inside = inside[:, :, None] + _neighbours(inside)
    same_outside = outside[:, :, None] + _neighbours(outside)
    largest = torch.maximum(same_inside, same_outside)
    total = (same_inside - largest).exp() + (same_outside - largest).exp()
    return -(total.log() + largest)[:, 0]


def _dice(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.flatten(1), y.flatten(1)
    return 1 - 2 * (x * y).sum(1) / (x.square().sum(1) + y.square().sum(1) + 1e-5)


def leaves(model: CondInst, batch: Batch) -> Inputs:
    with torch.no_grad():
        levels = model.fpn(model.backbone(model.normalized(batch.images, batch.sizes)))
        head = model.head(levels)
    levels = [level.detach().requires_grad_() for level in levels]
    outputs = DenseOutputs(
        class_logits=tuple(x.detach().requires_grad_() for x in head.class_logits),
        ltrb=tuple(x.detach().requires_grad_() for x in head.ltrb),
        quality_logits=tuple(x.detach().requires_grad_() for x in head.quality_logits),
        controller=ParametersOnDemand(
            features=tuple(x.detach().requires_grad_() for x in head.box_features),
            weight=model.controller.weight,
            bias=model.controller.bias,
        ),
        mask_features=torch.zeros(len(batch.images), 16, 1, 1),
    )
    return Inputs(levels=levels, outputs=outputs)


def step(
    model: CondInst,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    clock: Clock,
    autocast: Any = nullcontext,
) -> dict[str, float]:
    """One whole training step."""
    with clock.time("step"):
        with autocast():
            with clock.time("backbone, FPN forward"):
                levels = model.fpn(model.backbone(model.normalized(batch.images, batch.sizes)))
            with clock.time("FCOS head forward"):
                head = model.head(levels)
            with clock.time("mask part forward"):
                outputs = DenseOutputs(
                    class_logits=head.class_logits,
                    ltrb=head.ltrb,
                    quality_logits=head.quality_logits,
                    controller=ParametersOnDemand(
                        features=head.box_features,
                        weight=model.controller.weight,
                        bias=model.controller.bias,
                    ),
                    mask_features=model.mask_branch(levels),
                )
                targets, positives = targets_and_positives(outputs, batch)
                masks = mask_outputs(outputs.mask_features, positives, model.mask_head)
                student = StudentPass(
                    outputs=outputs, targets=targets, positives=positives, masks=masks
                )
                grid = mask_grid(batch)
                learns = MaskTargets(grid=grid, sources=trusted_pairs(grid, PairRule()))
                terms = compute_losses(student, batch, learns, rules=RULES, step=STEP)
        with clock.time("backward"):
            optimizer.zero_grad()
            terms.total().backward()
        with clock.time("optimizer"):
            optimizer.step()
    return {name: float(value.detach()) for name, value in terms.values.items()}


@torch.no_grad()
def infer(model: CondInst, batch: Batch, clock: Clock) -> int:
    """Masks of one image, as RLE."""
    images, sizes = batch.images[:1], batch.sizes[:1]
    with clock.time("inference"):
        with clock.time("network"):
            outputs = model(images, sizes)
        with clock.time("detections"):
            found = detect(outputs, batch.frames[:1], DetectionLimits())
        with clock.time("masks"):
            (instances,) = predict_masks(
                outputs, found, model.mask_head, original_sizes=batch.frames[:1]
            )
    return len(instances.masks)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compared_mask_parts(
    model: CondInst, batch: Batch, repeats: int, now: Callable[[], float]
) -> None:
    """Ours and the textbook's, in turns, so that both see the same noise."""
    clock = Clock(now=now)
    inputs = leaves(model, batch)
    totals = {}
    for name, part in {"ours": mask_part, "textbook": textbook_mask_part}.items():
        totals[name] = float(part(model, batch, inputs, Clock()).detach())
    for _ in range(repeats):
        for name, part in {"textbook": textbook_mask_part, "ours": mask_part}.items():
            with clock.time(name):
                with clock.time(f"{name} forward"):
                    loss = part(model, batch, inputs, clock if name == "ours" else Clock())
                loss.backward()
            model.zero_grad()
    ours, textbook = clock.median("ours"), clock.median("textbook")
    print(f"mask part: losses {totals['ours']:.6f} (ours), {totals['textbook']:.6f} (textbook)")
    print(f"  ours {1000 * ours:.0f} ms, textbook {1000 * textbook:.0f} ms: {textbook / ours:.1f}x")
    for name in ("targets", "mask branch", "dynamic head", "pairs", "losses", "ours forward"):
        print(f"    {name:>14} {1000 * clock.median(name):7.1f} ms")


def show(clock: Clock, whole: str, reference: dict[str, float]) -> None:
    total = clock.median(whole)
    known = reference.get(whole)
    beside = f" (reference {known} s: {total / known:.2f} of it)" if known else ""
    values = clock.seconds[whole]
    print(f"{whole}: {total:.2f} s, {min(values):.2f}..{max(values):.2f}{beside}")
    for name in clock.seconds:
        if name != whole:
            seconds = clock.median(name)
            print(f"  {name:>22} {1000 * seconds:7.0f} ms {100 * seconds / total:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", default="320x480", help="height x width, multiples of 32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds instead of wall clock")
    parser.add_argument("--bf16", action="store_true", help="a second figure under bf16 autocast")
    parser.add_argument("--parts", nargs="+", default=["mask", "step", "inference"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    height, width = (int(n) for n in options.size.split("x"))
    known = REFERENCE_CPU_SECONDS if options.cpu else REFERENCE_SECONDS
    reference = known.get((height, width), {})
    now = time.process_time if options.cpu else time.perf_counter
    recipe = load_recipe()
    model, batch = make_model(recipe), make_batch(recipe, height, width)
    print(
        f"torch {torch.__version__}, {options.threads} threads, {height}x{width}, 2 images, "
        f"{'CPU' if options.cpu else 'wall'} seconds"
    )
    if "step" in options.parts:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        clock = Clock(now=now)
        losses = step(model.train(), batch, optimizer, Clock())
        for _ in range(options.repeats):
            step(model, batch, optimizer, clock)
        show(clock, "step", reference)
        print(f"  peak RSS {peak_gb():.2f} GB (reference {reference.get('step RSS GB', '?')})")
        for name, value in losses.items():
            expected = RECORDED_LOSSES[name] if (height, width) == (320, 480) else float("nan")
            print(f"  {name:>22} {value:.5f} (recorded {expected:.5f})")
        if options.bf16:
            clock = Clock(now=now)
            for _ in range(options.repeats):
                cast = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
                step(model, batch, optimizer, clock, cast)
            print("bf16:")
            show(clock, "step", reference)
    if "mask" in options.parts:
        compared_mask_parts(model.train(), batch, options.repeats, now)
    if "inference" in options.parts:
        clock = Clock(now=now)
        count = infer(model.eval(), batch, Clock())
        for _ in range(options.repeats):
            infer(model, batch, clock)
        show(clock, "inference", reference)
        print(f"  {count} detections")


if __name__ == "__main__":
    sys.exit(main())
