"""Learning rates against the recorded ones (golden ``schedule.npz``)."""

from pathlib import Path

import numpy as np
import pytest

from boxdepth.trainer.build import build_model
from boxdepth.trainer.config import presets
from boxdepth.trainer.engine.optim import parameter_groups
from boxdepth.trainer.engine.schedule import learning_rate, scaled_learning_rate
from boxdepth.trainer.model.weight_names import from_adelaidet

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.mark.parametrize(
    ("name", "preset"), [("1x", presets.boxinst_r50_1x), ("3x", presets.boxinst_r50_3x)]
)
def test_learning_rates_of_the_presets_are_the_recorded_ones(
    name: str, preset: presets.Preset
) -> None:
    golden = np.load(GOLDEN / "schedule.npz")
    config = preset()
    base = scaled_learning_rate(
        config.optimizer.learning_rate,
        batch_size=config.data.batch_size,
        reference_batch_size=config.optimizer.reference_batch_size,
    )
    schedule = config.schedule
    rates = [
        learning_rate(
            int(iteration),
            base=base,
            steps=schedule.steps,
            gamma=schedule.gamma,
            warmup_iterations=schedule.warmup_iterations,
            warmup_factor=schedule.warmup_factor,
        )
        for iteration in golden[f"{name}/iterations"]
    ]
    np.testing.assert_allclose(rates, golden[f"{name}/lr"], rtol=1e-12)


def test_the_groups_of_the_optimizer_are_the_recorded_ones() -> None:
    """96 tensors decay, the 30 of the norms do not, the frozen ones are in neither group."""
    golden = np.load(GOLDEN / "schedule.npz")
    preset = presets.boxinst_r50_1x().model
    backbone = preset.backbone.changed(weights=None)
    config = preset.changed(num_classes=80, backbone=backbone)
    groups = parameter_groups(build_model(config), weight_decay=1e-4, norm_weight_decay=0.0)
    for group, name in zip(groups, ("group_wd_0.0001", "group_wd_0.0"), strict=True):
        assert set(group.names) == {ours(theirs) for theirs in golden[name].tolist()}


def ours(name: str) -> str:
    """Our name of a parameter; the five scales of the levels are one of ours."""
    found = from_adelaidet(name, mask_convs=4)
    assert found is not None
    return "head.scales" if found.startswith("head.scales.") else found
