"""Every setting with every strange value: refused by its name, or a config that reads back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxdepth.trainer.config.overrides import load_config
from boxdepth.trainer.errors import ConfigError
from boxdepth.trainer.presets import PRESETS

STRANGE = (
    None, "", "NaN", "auto", "../../etc/passwd", "\0", "é" * 300, True, -1, 0, 0.5, 1e308, -1e308,
    2**70, float("nan"), float("inf"), [], [0], [-1, 2], [True], [[]], {}, {"a": 1},
)  # fmt: skip


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))


def written(folder: Path, tree: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(tree))
    return file


def test_a_strange_value_is_refused_by_name_or_reads_back(tmp_path: Path) -> None:
    base = PRESETS["coco_r50_1x"]().model_dump(mode="json")
    refused = read = 0
    for path in leaves(base):
        for value in STRANGE:
            tree = json.loads(json.dumps(base))
            section = tree
            for key in path[:-1]:
                section = section[key]
            section[path[-1]] = value
            try:
                config = load_config(written(tmp_path, tree))
            except ConfigError as error:
                said = str(error)
            else:
                assert load_config(written(tmp_path, config.model_dump(mode="json"))) == config
                read += 1
                continue
            # NaN and numbers of more than 64 bits are no config at all.
            assert path[0] in said or "not a readable config" in said, (path, value)
            refused += 1
    assert refused > 2000
    assert read > 100


def test_drops_of_the_learning_rate_may_fall_together(tmp_path: Path) -> None:
    """A schedule of two steps has its two drops in one place."""
    tree = PRESETS["coco_r50_1x"]().model_dump(mode="json")
    tree["schedule"] |= {"iterations": 2, "steps": [2, 2]}
    assert load_config(written(tmp_path, tree)).schedule.steps == (2, 2)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data.workers", True, "expected a number, found true"),
        ("optimizer.learning_rate", True, "expected a number, found true"),
        ("model.fcos.level_ranges", [True, 64, 128, 256], "expected a number, found true"),
        ("model.fcos.level_ranges", [], "at least 4 items"),
        ("model.fcos.level_ranges", [64, 64, 128, 256], "ascending"),
        ("model.fcos.prior", 0, "greater than 0"),
        ("model.fcos.prior", 1, "less than 1"),
        ("model.fcos.center_radius", -1, "greater than 0"),
        ("model.backbone.pixel_std", [58, 0, 57], "greater than 0"),
        ("model.backbone.pixel_mean", [1e308, 0, 0], "less than or equal to 255"),
        ("model.backbone.deformable_stages", [1], "2, 3, 4 or 5"),
        ("data.augmentation.short_sides", [], "at least 1 item"),
        ("data.train", "a\0b", "a zero byte"),
        ("losses.color", 1e308, "less than or equal to 1000000"),
        ("losses.pairs.kernel_size", 4, "an odd number of at least 3"),
        ("losses.pairs.kernel_size", 1, "an odd number of at least 3"),
        ("schedule.steps", [80_000, 60_000], "ascending"),
    ],
)
def test_what_could_not_be_trained_is_refused(
    tmp_path: Path, path: str, value: Any, words: str
) -> None:
    tree = PRESETS["coco_r50_1x"]().model_dump(mode="json")
    section = tree
    *parents, leaf = path.split(".")
    for key in parents:
        section = section[key]
    section[leaf] = value
    with pytest.raises(ConfigError, match=f"{parents[0]}.*{words}"):
        load_config(written(tmp_path, tree))
