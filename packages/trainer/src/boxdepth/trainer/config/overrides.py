"""From what the user typed to one validated config: preset, then file, then `--set`."""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from boxdepth.trainer.config import RunConfig
from boxdepth.trainer.errors import ConfigError

MAX_CONFIG_BYTES = 1_000_000
MAX_DIGITS = 18
"""Of a whole number: 64 bits hold it."""


class TooLargeError(ValueError):
    """A number that no setting can be."""


def choose_preset(presets: Mapping[str, Callable[[], RunConfig]], name: str) -> RunConfig:
    """The named run.

    Raises:
        ConfigError: no preset of that name; says the nearest.
    """
    if name not in presets:
        raise ConfigError(
            f"no preset {name!r}{_nearest(name, presets)}; `trainer presets` lists them all"
        )
    return presets[name]()


def load_config(path: Path) -> RunConfig:
    """A resolved config from JSON or YAML, every key checked.

    Raises:
        ConfigError: unreadable, not a mapping, duplicate or unknown keys, values out of range.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: more than {MAX_CONFIG_BYTES} bytes; no config is that long")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the config: {error}") from error
    try:
        tree = _parse_json(text) if path.suffix == ".json" else _parse_yaml(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{path}: not a readable config: {problem}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    return _validate(tree, where=str(path))


def apply_overrides(config: RunConfig, assignments: Sequence[str]) -> RunConfig:
    """The config with `path.to.field=value` applied in order; values are JSON, or bare words.

    Raises:
        ConfigError: no `=`, an unknown field (says the nearest), or a value it can't take.
    """
    tree = config.model_dump(mode="json")
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment!r}: expected path.to.field=value")
        _set(tree, path.strip(), _value(text.strip()))
    return _validate(tree, where="--set") if assignments else config


def field_paths(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Every field of a run as the dotted path that `--set` takes."""
    paths = []
    for name, info in model.model_fields.items():
        paths.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            paths += field_paths(info.annotation, f"{prefix}{name}.")
    return paths


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    section: Any = tree
    for name in parents:
        section = section.get(name) if isinstance(section, dict) else None
    known = isinstance(section, dict) and (leaf in section or parents[-1:] == ["extra"])
    if not known:
        raise ConfigError(f"--set {path}: no such setting{_nearest(path, field_paths())}")
    section[leaf] = value


def _value(text: str) -> Any:
    try:
        return _parse_json(text)
    except TooLargeError as error:
        raise ConfigError(f"--set: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"--set {text[:40]}...: brackets nest too deep") from error
    except ValueError:
        return str(Path(text).expanduser()) if text.startswith("~") else text


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'x'?``: by the path's beginning, last part or initials."""
    section, _, leaf = name.rpartition(".")
    known = sorted(known, key=lambda path: not path.startswith(section))
    by_leaf = {path.rsplit(".", 1)[-1]: path for path in reversed(known)}
    by_initials = {"".join(w[:1] for w in full.split("_")): path for full, path in by_leaf.items()}
    by_initials |= {"lr": "optimizer.learning_rate"} if "learning_rate" in by_leaf else {}
    if leaf in by_leaf:
        return f"; did you mean {by_leaf[leaf]!r}?"
    if leaf in by_initials:
        return f"; did you mean {by_initials[leaf]!r}?"
    if longer := [path for path in known if path.startswith(name)]:
        return f"; did you mean {longer[0]!r}?"
    if match := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
        return f"; did you mean {match[0]!r}?"
    if match := difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.6):
        return f"; did you mean {by_leaf[match[0]]!r}?"
    return ""


def _validate(tree: dict[str, Any], *, where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{where}: " + "; ".join(problems)) from error


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{path}: no such setting{_nearest(path, field_paths())}"
    try:
        seen = repr(problem["input"])
    except (RecursionError, ValueError):  # nested too deep, or more digits than Python prints
        seen = " " * 81
    shown = "" if isinstance(problem["input"], dict) or len(seen) > 80 else f", got {seen}"
    return f"{path}: {problem['msg'][:1].lower()}{problem['msg'][1:]}{shown}"


def _parse_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise ValueError(f"key {key!r} stands there twice")
            seen[key] = value
        return seen

    def finite(constant: str) -> Any:
        raise ValueError(f"{constant} is not a value a run can have")

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise TooLargeError(
                f"{digits[:8]}... has {len(digits)} digits; no setting is that large"
            )
        return int(digits)

    return json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_int=whole)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe loading that refuses duplicate keys, and aliases with which a file could blow up."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases (*name) are not allowed in a config")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"key {key!r} stands there twice")
        return super().construct_mapping(node, deep=deep)


def _parse_yaml(text: str) -> Any:
    return _checked_numbers(_UniqueKeyLoader(text).get_single_data())


def _checked_numbers(value: Any) -> Any:
    """YAML's whole numbers, held to what JSON's are."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _checked_numbers(part)
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise TooLargeError(
            f"a whole number of more than {MAX_DIGITS} digits; no setting is so large"
        )
    return value
