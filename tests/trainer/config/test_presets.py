"""Named runs say what the papers say."""

from importlib import import_module

import pytest

from boxdepth.trainer.config import RunConfig, presets


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_named_after_its_function_and_describes_itself(name: str) -> None:
    preset = presets.PRESETS[name]
    config = preset()
    assert isinstance(config, RunConfig)
    assert config.name == name == preset.__name__
    assert preset.__doc__


@pytest.mark.parametrize("name", presets.PRESETS)
def test_warmups_and_steps_end_before_the_run_does(name: str) -> None:
    config = presets.PRESETS[name]()
    assert config.schedule.warmup_iterations < config.schedule.iterations
    assert 2 * config.losses.warmup_iterations <= config.schedule.iterations
    assert all(step < config.schedule.iterations for step in config.schedule.steps)


def test_the_coco_run_is_that_of_the_paper() -> None:
    run = presets.coco_r50_1x()
    assert run.schedule.iterations == 90_000
    assert run.schedule.steps == (60_000, 80_000)
    assert (run.data.batch_size, run.optimizer.learning_rate) == (16, 0.01)
    assert run.losses.pairs.depth_threshold == 0.5
    assert run.losses.consistency_region == "box"
    assert run.distillation.start == 65_000
    assert (run.distillation.gamma, run.distillation.reliability) == (4.0, 0.8)
    assert run.distillation.momentum == 0.999


def test_boxinst_has_no_depth_and_condinst_no_box_supervision() -> None:
    boxinst, condinst = presets.boxinst_r50_1x(), presets.condinst_r50_1x()
    assert boxinst.model.mask_head.depth == "off"
    assert (boxinst.losses.depth, boxinst.losses.consistency) == (0, 0)
    assert boxinst.data.supervision == "boxes"
    assert condinst.data.supervision == "masks"
    assert (condinst.losses.projection, condinst.losses.color) == (0, 0)
    assert condinst.losses.sampling.per_batch == 500
    assert condinst.model.mask_branch.out_channels == 8


def test_cityscapes_takes_the_papers_schedule() -> None:
    run = presets.cityscapes_r50()
    assert (run.schedule.iterations, run.schedule.steps) == (24_000, (18_000,))
    assert (run.data.batch_size, run.distillation.start) == (8, 19_000)
    assert run.data.augmentation.short_sides == (800, 832, 864, 896, 928, 960, 992, 1024)
    assert run.losses.warmup_iterations == 1000


def test_no_default_supervises_from_masks_but_condinst() -> None:
    masked = {n for n, p in presets.PRESETS.items() if p().data.supervision != "boxes"}
    assert masked == {"condinst_r50_1x", "condinst_r50_3x"}


@pytest.mark.parametrize("name", presets.PRESETS)
def test_no_preset_freezes_random_weights_in_silence(name: str) -> None:
    """Frozen stages need weights: the preset's own, or a file that its docstring asks for."""
    preset = presets.PRESETS[name]
    backbone = preset().model.backbone
    frozen = backbone.frozen_stages or backbone.frozen_norm
    assert not frozen or backbone.weights == "timm" or "weights=FILE" in str(preset.__doc__)


def test_the_public_path_leads_to_the_same_presets() -> None:
    assert import_module("boxdepth.trainer.presets").PRESETS is presets.PRESETS
