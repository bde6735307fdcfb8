"""The recorded recipe makes the same weights again, and all of them find their place."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model, import_weights


def shapes_of(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.strip("()").split(",") if n.strip())


@pytest.mark.parametrize("kind", ["tiny_boxinst", "tiny_condinst"])
def test_recipe_makes_the_tiny_weights(
    recorded: Any, recipe: ModuleType, compare: Any, shared_golden: Path, kind: str
) -> None:
    d = recorded("weights_digest")
    stored = load_file(shared_golden / "tiny_boxinst.safetensors")
    if kind == "tiny_condinst":
        stored |= load_file(shared_golden / "tiny_condinst_delta.safetensors")
    made = recipe.fill_state_dict({k: stored[k].shape for k in d[f"{kind}/names"]})
    sums = np.array([made[name].astype(np.float64).sum() for name in d[f"{kind}/names"]])
    compare.close(sums, d[f"{kind}/sums"], 1e-12, what="sums")
    assert recipe.digest(made) == str(d[f"{kind}/sha256"])
    for name, array in made.items():
        np.testing.assert_array_equal(array, stored[name], err_msg=name)


def test_r50_weights_of_the_recipe_fill_the_real_model(
    recorded: Any, recipe: ModuleType, compare: Any, tmp_path: Path
) -> None:
    d = recorded("weights_digest")
    names = [str(name) for name in d["r50_boxinst/names"]]
    shapes = [shapes_of(str(shape)) for shape in d["r50_boxinst/shapes"]]
    made = recipe.fill_state_dict(dict(zip(names, shapes, strict=True)))
    sums = np.array([made[name].astype(np.float64).sum() for name in names])
    compare.close(sums, d["r50_boxinst/sums"], 1e-12, what="sums")
    assert recipe.digest(made) == str(d["r50_boxinst/sha256"])
    path = tmp_path / "BoxInst_MS_R_50_1x.pth"
    torch.save({"model": {k: torch.from_numpy(v) for k, v in made.items()}, "iteration": 9}, path)
    model = config.Model(
        backbone=config.Backbone(stride_in_1x1=True, bgr=True),
        mask_head=config.MaskHead(depth="off"),
    )
    imported = import_weights(path, model)
    assert imported.kind == "model"
    assert imported.report.not_used == ()
    assert imported.report.started_anew == ()
    assert all(n.endswith("num_batches_tracked") for n in imported.report.not_in_file)


def test_the_real_model_has_the_recorded_parameters(shared_golden: Path) -> None:
    lines = (shared_golden / "state_dict_names.txt").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    trained = sum(
        int(np.prod(shapes_of(shape))) for _, shape, _, state in rows if state == "trained"
    )
    model = build_model(
        config.Model(
            num_classes=80,
            backbone=config.Backbone(stride_in_1x1=True),
            mask_head=config.MaskHead(depth="off"),
        )
    )
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained == 34_037_331
