"""Twenty steps of a tiny network, every loss term of each: what a refactor must leave as it is.

`python -m tests.trainer.loss_curves [NAME...]` records them anew in `tests/golden/losses`. That is
for a change that means to change numbers, and it says so in CHANGELOG.md.
"""

import platform
import sys
from pathlib import Path

import torch

from boxdepth.trainer import build
from boxdepth.trainer.config import RunConfig, presets
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.engine.distributed import World
from boxdepth.trainer.engine.health import NonFiniteGuard
from boxdepth.trainer.engine.update import learn_step

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
STORE = GOLDEN / "store_v1.zarr"
STEPS = 20

Curve = list[dict[str, float]]
"""The numbers of each step, by name."""

TINY = (
    'model.backbone.extra={"channels": [8, 16, 16, 32], "stem_width": 8}',
    "model.fpn_channels=32",
    "model.fcos.convs=1",
    "model.fcos.level_ranges=[16, 32, 64, 128]",
    "model.mask_branch.channels=8",
    "model.mask_branch.convs=1",
    "model.mask_branch.out_channels=4",
    "data.augmentation.short_sides=[80, 96]",
    "data.augmentation.max_size=128",
    "data.augmentation.resize=pillow",
    "data.batch_size=3",
    "data.workers=0",
    "data.bottom_rows_removed=4",
    "optimizer.name=sgd",
    "optimizer.learning_rate=0.005",
    "optimizer.reference_batch_size=3",
    "optimizer.weight_decay=0.0001",
    "losses.warmup_iterations=5",
    "losses.consistency=1",
    f'schedule={{"iterations": {STEPS}, "steps": [15], "warmup_iterations": 4}}',
)
TEACHER = (
    "distillation.start=6",
    "distillation.reliability=0.3",
    "distillation.gamma=1",
    "distillation.teacher_short_side=128",
    "distillation.teacher_max_size=192",
    "distillation.matching.beta_schedule=linear",
    "inference.score_threshold=0.005",
)
WITHOUT_DEPTH = ("model.mask_head.depth=off", "losses.depth=0", "losses.consistency=0")
CURVES = {
    "boxinst": WITHOUT_DEPTH,
    "depth": ("losses.consistency_region=box",),
    "distilled": ("distillation.method=depth_matching", "model.mask_head.depth=product", *TEACHER),
    "box_teacher": (
        *WITHOUT_DEPTH, *TEACHER, "distillation.method=box_teacher",
        "distillation.mask_affinity=0.1", "data.augmentation.color=strong",
        "distillation.teacher_short_side=null", "distillation.start=2",
    ),
    "condinst": (
        *WITHOUT_DEPTH, "data.supervision=masks", "model.mask_branch.semantic_loss=true",
        'losses.sampling={"per_image": null, "per_batch": 12}', "model.fcos.quality=iou",
    ),
    "mixed": (
        "data.supervision=mixed", "data.mask_fraction=0.5", "data.accumulate=3",
        "losses.depth_reduction=instances",
    ),
}  # fmt: skip
"""What each curve's run changes in the tiny one."""


def run_of(name: str) -> RunConfig:
    """The run whose losses a curve holds."""
    return apply_overrides(presets.scenes_tiny(), [*TINY, *CURVES[name]])


def curve(name: str, *, steps: int = STEPS) -> Curve:
    """The loss terms of the first steps of a run, on one thread."""
    run = run_of(name)
    data = build.training_set(run, STORE)
    run = build.with_classes(run, len(data.store.attributes.categories))
    learner = build.build_learner(run, torch.device("cpu"), World())
    torch.nn.init.constant_(learner.model.head.ltrb.bias, 1.5)  # boxes that a teacher can match
    guard = NonFiniteGuard()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            _losses(learn_step(learner, step, passes, guard=guard, watching=True))
            for step, passes in enumerate(build.batch_loader(run, data, World()).steps(0, steps))
        ]
    finally:
        torch.set_num_threads(threads)


def _losses(numbers: dict[str, torch.Tensor]) -> dict[str, float]:
    wanted = ("losses/", "total_loss", "gradient_norm")
    return {name: float(value) for name, value in numbers.items() if name.startswith(wanted)}


def machine() -> str:
    """What decides the last bits of a loss."""
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__} {platform.machine()} {instructions}"


def path_of(name: str) -> Path:
    """The file of a recorded curve."""
    return GOLDEN / "losses" / f"{name}.txt"


def write(name: str, numbers: Curve) -> None:
    """One line a step, one column a term, nine digits."""
    columns = list(numbers[0])
    lines = [f"# {machine()}", " ".join(["step", *columns])]
    for step, row in enumerate(numbers):
        lines.append(" ".join([str(step), *(f"{row[column]:.9g}" for column in columns)]))
    path_of(name).write_text("\n".join(lines) + "\n")


def read(name: str) -> tuple[str, Curve]:
    """(the machine that recorded it, the curve)."""
    first, header, *lines = path_of(name).read_text().splitlines()
    columns = header.split()[1:]
    rows = [dict(zip(columns, map(float, line.split()[1:]), strict=True)) for line in lines]
    return first.removeprefix("# "), rows


if __name__ == "__main__":
    for chosen in sys.argv[1:] or CURVES:
        write(chosen, curve(chosen))
        print(path_of(chosen))
