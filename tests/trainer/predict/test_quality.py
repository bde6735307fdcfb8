"""The quality figure of a mask: each cue against a loop, and what the figure is for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from boxdepth.trainer.predict.quality import (
    CUES,
    WEIGHTS,
    CueReader,
    cell_colors,
    contested_share,
    expected_quality,
    mask_cues,
)

HEIGHT, WIDTH = 13, 17


def disc(cx: float, cy: float, radius: float, *, steep: float = 4.0) -> torch.Tensor:
    """A disc's probabilities on the grid: 0.5 on its outline."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    distance = ((x - cx) ** 2 + (y - cy) ** 2).sqrt()
    return torch.sigmoid(steep * (radius - distance))


def by_loop(p: np.ndarray, box: list[float], colors: np.ndarray) -> dict[str, float]:
    """The cues of one mask from their definitions, cell by cell."""
    cells = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
    region = {
        (y, x) for y, x in cells if box[0] <= x + 0.5 <= box[2] and box[1] <= y + 0.5 <= box[3]
    }
    mask = {(y, x) for y, x in cells if p[y, x] > 0.5}
    rows = sorted({y for y, _ in region})
    columns = sorted({x for _, x in region})
    pairs = [((y, x), (y, x + 1)) for y, x in cells if x + 1 < WIDTH]
    pairs += [((y, x), (y + 1, x)) for y, x in cells if y + 1 < HEIGHT]
    pairs = [(a, b) for a, b in pairs if a in region or b in region]
    contrast = {(a, b): math.dist(colors[:, *a], colors[:, *b]) for a, b in pairs}
    outline = [contrast[a, b] for a, b in pairs if (a in mask) != (b in mask)]
    usual = sum(contrast.values()) / len(contrast)
    edge = sum(outline) / max(len(outline), 1)
    wide = {
        (y, x) for y, x in cells
        if any((y + dy, x + dx) in mask for dy in range(-2, 3) for dx in range(-2, 3))
    }  # fmt: skip

    def statistics(where: set[tuple[int, int]]) -> tuple[np.ndarray, float]:
        values = np.array([colors[:, y, x] for y, x in where])
        return values.mean(axis=0), float(values.var(axis=0).sum())

    inside, spread = statistics(mask & region)
    ring, spread_ring = statistics(wide - mask)
    _, spread_box = statistics(region)
    apart = math.dist(inside, ring) / math.sqrt(spread + spread_ring + 1e-4)
    return {
        "inside": np.mean([p[c] for c in mask]),
        "stable": (p > 0.7).sum() / (p > 0.3).sum(),
        "rows": np.mean([max(p[y, x] for x in columns) for y in rows]),
        "columns": np.mean([max(p[y, x] for y in rows) for x in columns]),
        "leak": 1 - sum(p[c] for c in region) / p.sum(),
        "fill": len(mask & region) / len(region),
        "edges": edge / (edge + usual),
        "size": math.log2(math.sqrt((box[2] - box[0]) * (box[3] - box[1]))) / 8,
        "even": spread / (spread + spread_box + 1e-6),
        "apart": apart / (1 + apart),
    }


def test_cues_are_what_their_definitions_say() -> None:
    torch.manual_seed(3)
    colors = torch.rand(3, HEIGHT, WIDTH)
    masks = torch.stack([disc(6.2, 5.7, 3.4), disc(10, 7, 4.5, steep=0.7)])
    boxes = torch.tensor([[2.8, 2.3, 9.6, 9.1], [6.0, 3.0, 14.0, 11.0]])
    found = mask_cues(masks, boxes, colors=colors)
    for row, (mask, box) in enumerate(zip(masks, boxes.tolist(), strict=True)):
        expected = by_loop(mask.numpy(), box, colors.numpy())
        assert dict(zip(CUES, found[row].tolist(), strict=False)) == pytest.approx(
            expected, abs=1e-5
        )


def test_a_cell_is_the_mean_of_its_pixels() -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[0, :4, :4] = torch.arange(16).reshape(4, 4)
    colors = cell_colors(image)
    assert colors.shape == (3, 2, 2)
    assert colors[0, 0, 0].item() == pytest.approx(7.5 / 255)
    assert colors[:, 1].abs().sum() == 0


def test_masks_on_the_same_cells_contest_them() -> None:
    one, far = disc(4, 6, 2.5), disc(13, 6, 2.5)
    alone, twice, half = contested_share(torch.stack([far, one, one])).tolist()
    assert alone < 0.05
    assert twice == half == pytest.approx(1.0, abs=1e-5)
    assert contested_share(one[None]).tolist() == [0.0]


def test_the_reader_sees_the_same_in_parts() -> None:
    torch.manual_seed(4)
    colors = torch.rand(3, HEIGHT, WIDTH)
    masks = torch.stack([disc(5, 5, 3), disc(7, 6, 3), disc(12, 7, 4)])
    boxes = torch.tensor([[2.0, 2, 8, 8], [4, 3, 10, 9], [8, 3, 16, 11]])
    whole = CueReader(colors=colors, threshold=0.5)
    whole.read(masks, boxes)
    parts = CueReader(colors=colors, threshold=0.5)
    parts.read(masks[:2], boxes[:2])
    parts.read(masks[2:], boxes[2:])
    np.testing.assert_allclose(whole.cues(), parts.cues(), rtol=1e-3, atol=1e-5)
    assert whole.cues().shape == (3, len(CUES))
    assert CueReader(colors=colors, threshold=0.5).cues().shape == (0, len(CUES))


def test_quality_is_a_share_and_finds_the_worse_of_two_masks() -> None:
    """A disc on its own colour, and: shifted off it, blurred, or the box filled."""
    colors = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5)) * 0.1
    good = disc(8, 6.5, 4)
    colors = colors + 0.6 * good
    box = torch.tensor([[4.0, 2.5, 12.0, 10.5]])
    filled = torch.full((HEIGHT, WIDTH), 0.02)
    filled[3:10, 4:12] = 0.9
    qualities = [
        float(expected_quality(_cues(mask, box, colors))[0])
        for mask in (good, disc(11, 8, 4), disc(8, 6.5, 4, steep=0.3), filled)
    ]
    assert all(0 <= quality <= 1 for quality in qualities)
    assert qualities[0] == max(qualities)
    assert qualities[0] - max(qualities[1:3]) > 0.2  # a filled box is the hardest to tell


def test_an_empty_mask_and_a_box_without_cells_have_a_quality_too() -> None:
    colors = torch.rand(3, HEIGHT, WIDTH)
    nothing = torch.zeros(1, HEIGHT, WIDTH)
    for box in ([[3.1, 3.1, 3.2, 3.2]], [[0.0, 0.0, 17.0, 13.0]], [[16.9, 12.9, 17.0, 13.0]]):
        cues = _cues(nothing[0], torch.tensor(box), colors)
        assert np.isfinite(cues).all()
        assert 0 <= float(expected_quality(cues)[0]) <= 0.6


def test_there_is_a_weight_for_each_cue() -> None:
    assert len(WEIGHTS) == len(CUES) == len(set(CUES))


def _cues(mask: torch.Tensor, box: torch.Tensor, colors: torch.Tensor) -> np.ndarray:
    reader = CueReader(colors=colors, threshold=0.5)
    reader.read(mask[None], box)
    return reader.cues()


def test_every_predicted_mask_carries_its_quality(trainer, make_store, tiny_checkpoint) -> None:
    """In given boxes and without: in the file that `evaluate review` sorts by it."""
    store = make_store("boxes", sizes=[(64, 96), (50, 70)])
    for arguments in ((), ("--boxes", "store")):
        code, _, said = trainer(
            "predict", tiny_checkpoint, "--store", store.path, *arguments,
            "--out", "m.json", "--overwrite",
        )  # fmt: skip
        assert code == 0, said
        masks = json.loads(Path("m.json").read_text())
        assert len(masks) >= 4
        assert all(0 <= mask["quality"] <= 1 for mask in masks)
