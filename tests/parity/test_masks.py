"""Mask head, mask losses and neighbour pairs against the recorded reference."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.conftest import centers_within
from torch import Tensor

from boxdepth.trainer.geometry.boxes import box_areas, box_bitmaps
from boxdepth.trainer.geometry.lab import rgb_to_lab
from boxdepth.trainer.geometry.neighbours import neighbour_offsets, overlap
from boxdepth.trainer.geometry.resize import pooled, subsampled
from boxdepth.trainer.losses.dice import dice_losses
from boxdepth.trainer.losses.pairwise import disagreement, pairwise_sums
from boxdepth.trainer.losses.projection import projection_losses
from boxdepth.trainer.model import dynamic_mask_head
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec, mask_outputs
from boxdepth.trainer.structures import MaskGrid, Positives
from boxdepth.trainer.targets.mask_grid import lab_of_cells
from boxdepth.trainer.targets.pairs import color_pairs, similarity
from boxdepth.trainer.targets.rules import PairRule

SPECS = {
    "boxinst": MaskHeadSpec(features=16, depth="off"),
    "condinst": MaskHeadSpec(features=8, depth="off"),
    "no_rel_coords": MaskHeadSpec(features=8, depth="off", relative_coordinates=False),
    "five_layers": MaskHeadSpec(features=8, depth="off", layers=5, channels=4),
    "stride8": MaskHeadSpec(features=16, depth="off"),
}


@pytest.mark.parametrize("case", list(SPECS))
def test_dynamic_mask_head(
    recorded: Any,
    compare: Any,
    random_like: Callable[[str, Tensor], Tensor],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    d = recorded("dynamic_mask_head")
    features = torch.from_numpy(d[f"{case}/mask_feats"]).requires_grad_()
    params = torch.from_numpy(d[f"{case}/params"]).requires_grad_()
    assert params.shape[1] == SPECS[case].num_params
    positives = Positives(
        location_xy=torch.from_numpy(d["locations"]),
        level=torch.from_numpy(d["fpn_levels"]),
        image_index=torch.from_numpy(d["im_inds"]),
        box_index=torch.zeros(len(params), dtype=torch.int64),
        params=params,
    )
    if case == "stride8":  # not upsampled
        monkeypatch.setattr(dynamic_mask_head, "upsampled", lambda coarse: coarse)
    logits = mask_outputs(features, positives, SPECS[case]).logits
    compare.close(logits, d[f"{case}/mask_logits"], what=f"{case}/mask_logits")
    (logits * random_like("dynamic_head.g", logits)).sum().backward()
    compare.close(features.grad, d[f"{case}/grad_feats"], 1e-4, what=f"{case}/grad_feats")
    compare.close(params.grad, d[f"{case}/grad_params"], 1e-4, what=f"{case}/grad_params")


def test_projection_loss(recorded: Any, compare: Any) -> None:
    d = recorded("projection_pairwise_dice")
    logits = torch.from_numpy(d["logits"]).requires_grad_()
    loss = projection_losses(logits, torch.from_numpy(d["gt"])[:, 0].bool(), torch.arange(5)).mean()
    loss.backward()
    compare.close(loss, d["projection"], what="projection")
    compare.close(logits.grad, d["projection_grad"], 1e-4, what="projection_grad")


def test_dice_loss(recorded: Any, compare: Any) -> None:
    d = recorded("projection_pairwise_dice")
    logits = torch.from_numpy(d["logits"]).requires_grad_()
    target = torch.from_numpy(d["gt"]).float()
    losses = dice_losses(logits.flatten(1).sigmoid(), target.flatten(1))
    losses.mean().backward()
    compare.close(losses, d["dice"], what="dice")
    compare.close(logits.grad, d["dice_grad"], 1e-4, what="dice_grad")


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (3, 1), (5, 1), (5, 2)])
def test_pairwise_loss(
    recorded: Any, compare: Any, recipe: ModuleType, kernel: int, dilation: int
) -> None:
    d = recorded("projection_pairwise_dice")
    case = f"pairwise_k{kernel}_d{dilation}"
    logits = torch.from_numpy(d["logits"]).requires_grad_()
    offsets = neighbour_offsets(kernel, dilation)
    height, width = logits.shape[-2:]
    terms = torch.zeros(len(logits), len(offsets), height, width)
    for k, offset in enumerate(offsets):
        here, there = overlap(height, width, offset)
        terms[:, k, *here] = disagreement(logits[:, 0, *here], logits[:, 0, *there])
    compare.close(terms, d[case], what=case)
    random = recipe.seeded("losses2.sim").rand(*terms.shape) > 0.4
    counted = torch.from_numpy(random) & torch.from_numpy(d["gt"]).bool()
    sums, numbers = pairwise_sums(logits, counted, torch.arange(len(logits)), offsets)
    loss = sums.sum() / numbers.sum().clamp(min=1)
    loss.backward()
    compare.close(loss, d[f"{case}_loss"], what=f"{case}_loss")
    compare.close(logits.grad, d[f"{case}_grad"], 1e-4, what=f"{case}_grad")


def valid_pixels(images: Tensor, sizes: Tensor, original_heights: np.ndarray) -> Tensor:
    """What the collate function makes: inside the image, above the last 10 original rows."""
    valid = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    for row, (height, width), original in zip(valid, sizes.tolist(), original_heights, strict=True):
        row[: height - int(10 * height / original), :width] = True
    return valid


@pytest.mark.parametrize("case", ["two_sizes", "one"])
def test_color_similarity(recorded: Any, compare: Any, rgb_batch: Any, case: str) -> None:
    d = recorded("color_similarity")
    count = len(d[f"{case}/orig_height"])
    images, sizes = rgb_batch(*(d[f"{case}/image/{i}"] for i in range(count)))
    assert list(images.shape[-2:]) == d[f"{case}/padded_size"].tolist()
    valid = valid_pixels(images, sizes, d[f"{case}/orig_height"])
    compare.close(valid, d[f"{case}/valid_mask"], what="valid_mask")
    small = pooled(images.float(), 4).trunc().permute(0, 2, 3, 1)
    compare.close(small.to(torch.uint8), d[f"{case}/downsampled_rgb"], what="downsampled_rgb")
    lab = lab_of_cells(images)
    compare.close(lab.permute(0, 2, 3, 1), d[f"{case}/lab"], what="lab")
    coarse = subsampled(valid, 4)
    similar = similarity(lab, coarse, PairRule())
    seen = MaskGrid(
        box_bitmaps=torch.zeros(0, *lab.shape[2:], dtype=torch.bool),
        valid=coarse,
        inverse_depth=torch.zeros(count, 1, *lab.shape[2:]),
        depth_valid=torch.zeros(count, dtype=torch.bool),
        lab=lab,
    )
    pairs = color_pairs(seen, PairRule()).pairs
    grid = (images.shape[-2] // 4, images.shape[-1] // 4)
    for i in range(count):
        expected = d[f"{case}/similarity/{i}"]
        compare.close(similar[i], expected, what=f"similarity/{i}")
        compare.close(pairs[i], expected >= 0.3, what=f"pairs of similarity/{i}")
        boxes = torch.from_numpy(d[f"{case}/boxes/{i}"])
        bitmaps = box_bitmaps(boxes, grid=grid, stride=4)
        compare.close(bitmaps, d[f"{case}/gt_bitmasks/{i}"], what=f"gt_bitmasks/{i}")
        size = (images.shape[-2], images.shape[-1])
        centers = centers_within(boxes, size)
        compare.close(centers, d[f"{case}/gt_centroid/{i}"], what=f"gt_centroid/{i}")
        full = box_bitmaps(boxes, grid=size, stride=1)
        area = full.sum(dim=(1, 2)).float()
        compare.close(area, d[f"{case}/gt_full_area/{i}"], what=f"gt_full_area/{i}")
        assert (box_areas(boxes) <= area + 2 * (boxes.amax(dim=1))).all()


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (5, 3)])
def test_similarity_of_other_windows(
    recorded: Any, compare: Any, kernel: int, dilation: int
) -> None:
    d = recorded("color_similarity")
    similar = similarity(
        torch.from_numpy(d["generic/lab"]),
        torch.from_numpy(d["generic/mask"])[None].bool(),
        PairRule(kernel_size=kernel, dilation=dilation),
    )
    case = f"generic/k{kernel}_d{dilation}"
    compare.close(similar, d[case], what=case)


def test_lab_of_tensors(recorded: Any, compare: Any) -> None:
    d = recorded("boxteacher_units")
    compare.close(rgb_to_lab(torch.from_numpy(d["lab/rgb"])), d["lab/lab"], what="lab/lab")
