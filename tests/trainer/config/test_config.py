"""From what was typed to a config: every mistake is one line that names the cure."""

from pathlib import Path

import pytest

from boxdepth.trainer.config import RunConfig, presets
from boxdepth.trainer.config.overrides import (
    ConfigError,
    apply_overrides,
    choose_preset,
    field_paths,
    load_config,
)


@pytest.fixture
def base() -> RunConfig:
    return presets.coco_r50_1x()


def test_set_changes_one_field_and_nothing_else(base: RunConfig) -> None:
    changed = apply_overrides(base, ["optimizer.learning_rate=1e-3"])
    assert changed.optimizer.learning_rate == 0.001
    back = apply_overrides(changed, [f"optimizer.learning_rate={base.optimizer.learning_rate}"])
    assert back == base


def test_set_takes_lists_null_booleans_and_paths(base: RunConfig) -> None:
    changed = apply_overrides(
        base,
        [
            "data.augmentation.short_sides=[320, 352]",
            "losses.sampling.per_image=null",
            "losses.sampling.per_batch=500",
            "data.keep_empty=true",
            "data.train=elsewhere/a.zarr",
            "model.backbone.extra.drop_path_rate=0.1",
        ],
    )
    assert changed.data.augmentation.short_sides == (320, 352)
    assert changed.losses.sampling.per_image is None
    assert changed.data.keep_empty is True
    assert changed.data.train == Path("elsewhere/a.zarr")
    assert changed.model.backbone.extra == {"drop_path_rate": 0.1}


def test_the_last_of_two_assignments_holds(base: RunConfig) -> None:
    assert apply_overrides(base, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("optimizer.lr=1", "optimizer.learning_rate"),
        ("optimizer.learning_rat=1", "optimizer.learning_rate"),
        ("learning_rate=1", "optimizer.learning_rate"),
        ("data.batchsize=2", "data.batch_size"),
        ("losses.warmup=3", "losses.warmup_iterations"),
        ("losses.pairs.depth_treshold=0.3", "losses.pairs.depth_threshold"),
    ],
)
def test_a_wrong_key_suggests_the_nearest(base: RunConfig, wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"no such setting; did you mean '{nearest}'"):
        apply_overrides(base, [wrong])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("schedule.iterations=-3", "greater than 0, got -3"),
        ("schedule.iterations=many", "valid integer.*'many'"),
        ("distillation.matching.beta=0.9", "alpha \\+ beta must not exceed 1"),
        ("model.fcos.quality=area", "'centerness' or 'iou', got 'area'"),
        ("losses.sampling.per_batch=10", r"per_image \(64\) and per_batch \(10\) exclude"),
        ("optimizer.learning_rate", "expected path.to.field=value"),
        ("optimizer.learning_rate=NaN", "greater than 0|finite"),
    ],
)
def test_a_wrong_value_is_named(base: RunConfig, wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        apply_overrides(base, [wrong])


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no preset 'scenes_tin'; did you mean 'scenes_tiny'"):
        choose_preset(presets.PRESETS, "scenes_tin")


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_resolved_config_comes_back_from_its_file(
    base: RunConfig, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"run{suffix}"
    path.write_text(base.model_dump_json(indent=1))
    assert load_config(path) == base


def test_a_yaml_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\noptimizer:\n  learning_rate: 1e-4\n")
    assert load_config(path).optimizer.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "name: x\nseed: 1\nseed: 2\n", "'seed' stands there twice"),
        ("a.json", '{"name": "x", "seed": 1, "seed": 2}', "'seed' stands there twice"),
        ("a.json", '{"name": "x", "seed": NaN}', "NaN is not a value"),
        ("a.json", '{"name": "x"', "not a readable config"),
        ("a.yaml", "name: x\nsede: 2\n", "sede: no such setting; did you mean 'seed'"),
        ("a.yaml", "- 1\n- 2\n", "expected a mapping of settings, found list"),
        ("a.yaml", "a: &a [1]\nb: *a\n", "aliases"),
        ("a.yaml", "name: !!python/object/apply:os.getcwd []\n", "not a readable config"),
        ("a.yaml", "seed: 1\n", "name: field required"),
    ],
)
def test_a_bad_config_file_is_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_can_be_set_by_its_path(base: RunConfig) -> None:
    paths = field_paths()
    assert {"seed", "data.augmentation.flip", "distillation.matching.alpha"} <= set(paths)
    for path in paths:
        value = base
        for name in path.split("."):
            value = getattr(value, name)


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep.json", "[" * 100_000),
        ("deep_name.json", '{"name": ' + "[" * 900 + "]" * 900 + "}"),
        ("deep.yaml", "[" * 5000),
        ("huge.json", f'{{"name": "x", "seed": {HUGE}}}'),
        ("huger.json", f'{{"name": "x", "seed": 1{"0" * 10_000}}}'),
        ("huge.yaml", f"name: x\nseed: {HUGE}"),
        ("huger.yaml", f"name: x\nseed: 1{'0' * 10_000}"),
        ("huge_float.json", '{"name": "x", "optimizer": {"learning_rate": 1e400}}'),
        ("list.json", "[1]"),
        ("bytes.json", "\udcff"),
    ],
)
def test_a_config_that_no_run_can_have_is_a_config_error(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=name):
        load_config(path)


@pytest.mark.parametrize("value", [HUGE, "1" + "0" * 20, "1e400", "[" * 50_000, "-" + HUGE])
def test_a_setting_that_no_run_can_have_is_a_config_error(value: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides(presets.scenes_tiny(), [f"schedule.iterations={value}"])


def test_a_tilde_in_a_setting_is_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    run = apply_overrides(presets.scenes_tiny(), ["data.train=~/x.zarr"])
    assert run.data.train == Path("/somewhere/x.zarr")
