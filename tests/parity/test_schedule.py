"""Learning rates against the recorded ones (golden ``schedule.npz``)."""

from pathlib import Path

import numpy as np
import pytest

from boxdepth.trainer import presets
from boxdepth.trainer.engine.schedule import learning_rate, scaled_learning_rate


@pytest.mark.parametrize(
    ("name", "preset"), [("1x", presets.boxinst_r50_1x), ("3x", presets.boxinst_r50_3x)]
)
def test_learning_rates_of_the_presets_are_the_recorded_ones(
    shared_golden: Path, name: str, preset: presets.Preset
) -> None:
    golden = np.load(shared_golden / "schedule.npz")
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
