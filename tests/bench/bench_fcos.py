"""Our BoxInst training step beside torchvision's plain FCOS, of equal input, in turns.

    python tests/bench/bench_fcos.py [--size 320x480] [--repeats 5] [--threads 1]

Both R-50-FPN with frozen norms, stem and first stage, channels last, SGD, two images, eight boxes
each.  FCOS detects and has no masks: its cost is the floor of an R-50 step, what we cost beyond
it are targets, the mask part and its losses.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from bench_step import Clock, load_recipe, make_batch, make_model, peak_gb, step
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from boxdepth.trainer.structures import Batch


def torchvision_fcos(size: tuple[int, int]) -> FCOS:
    """As shipped for COCO, at the batch's own size."""
    body = _resnet_fpn_extractor(
        resnet50(norm_layer=FrozenBatchNorm2d),
        3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = FCOS(body, num_classes=80, min_size=min(size), max_size=max(size)).train()
    return model.to(memory_format=torch.channels_last)


def their_step(model: FCOS, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
    """One training step of torchvision's."""
    images = [image.float() / 255 for image in batch.images]
    boxes = torch.split(batch.boxes_xyxy, batch.counts)
    labels = torch.split(batch.labels, batch.counts)
    targets = [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]
    losses: dict[str, Tensor] = model(images, targets)
    total = torch.stack(list(losses.values())).sum()
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return float(total.detach())


def main() -> None:
    """Print both steps, and their ratio round by round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="320x480", help="height x width, multiples of 32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    height, width = (int(n) for n in options.size.split("x"))
    recipe = load_recipe()
    ours, batch = make_model(recipe).train(), make_batch(recipe, height, width)
    theirs = torchvision_fcos((height, width))
    learns = {name: _sgd(model) for name, model in (("ours", ours), ("theirs", theirs))}
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: step(ours, batch, learns["ours"], Clock()),
        "theirs": lambda: their_step(theirs, batch, learns["theirs"]),
    }
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(options.repeats + 1):
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            if number:
                costs[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    for place, kind in enumerate(("CPU", "wall")):
        mine, other = ([cost[place] for cost in costs[name]] for name in ways)
        ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
        print(
            f"{kind}: BoxInst step {1000 * statistics.median(mine):.0f} ms, torchvision's FCOS "
            f"{1000 * statistics.median(other):.0f} ms: {ratio:.2f}x"
        )
    print(f"peak RSS of both {peak_gb():.2f} GB")


def _sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    learning = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(learning, lr=0.0, momentum=0.9)


if __name__ == "__main__":
    main()
