"""What the user has -> a store: as it is, or the `depthgen run` that makes one of it."""

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from boxdepth.trainer.errors import ConfigError, TrainerError

Split = Literal["train", "val"]
ROBOFLOW = "_annotations.coco.json"
YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")
STDERR = 2
"""A process's own results are words here."""
_NAMES: dict[str, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation")}


class DepthgenFailedError(TrainerError):
    """`depthgen run` ended badly; its own words are on the screen, and its exit code is ours."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"`{command}` ended with exit code {code}; the same command goes on")
        self.exit_code = code if code > 0 else 128 - code


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSource:
    """A store, and how it is made where it is missing."""

    store: Path
    command: tuple[str, ...] | None
    """Arguments of `depthgen`; None: the user gave a store."""

    @property
    def typed(self) -> str:
        """The command as a person types it."""
        return shlex.join(["depthgen", *(self.command or ())])


def find_source(
    data: Path, *, split: Split, images: Path | None, stores: Path, model: str | None = None
) -> StoreSource:
    """How to get a store of a dataset: a store, or anything that `depthgen run` reads.

    Args:
        data: a store; a COCO-format JSON file; a YOLO folder or its data.yaml; a VOC folder; a
            folder in Roboflow's layout; or an official COCO root.
        images: folder of the images, with a JSON file.
        stores: where new stores go.
        model: depth model; None: depthgen's own choice.

    Raises:
        ConfigError: not there, or nothing that is known; says what would be.
    """
    if is_store(data):
        if images is not None:
            raise ConfigError(f"--images belongs to a JSON file, and {data} is a store")
        return StoreSource(store=data, command=None)
    if not data.exists():
        raise ConfigError(
            f"{data}: not there; expected a store, a COCO-format JSON file, or a YOLO, VOC or "
            "Roboflow folder"
        )
    layout, where, found = _layout(data, split=split, images=images)
    store = stores / _store_name(data, split=found)
    options = ("--with-masks", *(("--model", model) if model else ()))
    command = ("run", "--dataset", layout, *where, "--split", found, "--store", str(store))
    return StoreSource(store=store, command=(*command, *options))


@dataclass(frozen=True, slots=True, kw_only=True)
class UserData:
    """What somebody has to learn from."""

    train: Path | None
    val: Path | None = None
    images: Path | None = None
    """Folder of the images, where `train` and `val` are JSON files."""
    depth_model: str | None = None
    """None: depthgen's own choice."""


def stores_of(
    data: UserData, stores: Path, *, on_command: Callable[[str], None]
) -> tuple[Path, Path | None]:
    """The stores of a dataset, to learn from and to judge by; those that are missing are made.

    Args:
        stores: where new stores go.
        on_command: told of every `depthgen run` before it starts, as a person types it.

    Raises:
        ConfigError: nothing that is known.
        DepthgenFailedError: `depthgen run` did not end well.
    """
    if data.train is None:
        raise ConfigError(
            "fit auto: nothing to learn from: give --train DATA, a store or what `depthgen run` "
            "reads (a COCO JSON file, a YOLO, VOC or Roboflow folder)"
        )
    wanted: list[tuple[Split, Path | None]] = [("train", data.train), ("val", data.val)]
    sources = [
        find_source(
            path,
            split=split,
            images=data.images if path.is_file() else None,
            stores=stores,
            model=data.depth_model,
        )
        for split, path in wanted
        if path is not None
    ]
    for source in sources:
        if source.command is not None:
            on_command(source.typed)
        make_store(source)
    return sources[0].store, sources[1].store if len(sources) > 1 else None


def is_store(path: Path) -> bool:
    """Whether a path is, or is called like, a store."""
    return path.suffix == ".zarr" or (path / "zarr.json").is_file()


def make_store(source: StoreSource) -> None:
    """Run depthgen as a process of its own, its words on this one's stderr; resumes what is begun.

    Raises:
        DepthgenFailedError: it did not end well.
    """
    if source.command is None:
        return
    program = "from boxdepth.depthgen.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *source.command], stdout=STDERR, check=False
    )
    if done.returncode:
        raise DepthgenFailedError(source.typed, done.returncode)


def _layout(data: Path, *, split: Split, images: Path | None) -> tuple[str, tuple[str, ...], str]:
    """(depthgen's name of the layout, where it lies, the split's name there)."""
    if data.is_file() and data.suffix.lower() == ".json":
        folder = images or data.parent
        where = ("--images", str(folder), "--annotations", str(data))
        return "custom", where, split
    if images is not None:
        raise ConfigError(f"--images belongs to a JSON file, and {data} is none")
    if data.is_file():
        if data.suffix.lower() in (".yaml", ".yml"):
            return "yolo", ("--annotations", str(data)), split
        raise ConfigError(f"{data}: expected a COCO-format .json or a YOLO data.yaml")
    return _folder_layout(data, split=split)


def _folder_layout(data: Path, *, split: Split) -> tuple[str, tuple[str, ...], str]:
    root = ("--data-root", str(data))
    if (data / ROBOFLOW).is_file():
        return "custom", ("--images", str(data)), split
    for name in _NAMES[split]:
        if (data / name / ROBOFLOW).is_file():
            return "custom", root, name
    for base in (data / "coco", data):
        if (base / "annotations" / f"instances_{split}2017.json").is_file():
            return "coco", root, f"{split}2017"
    if any((data / name).is_file() for name in (*YOLO_FILES, "classes.txt")):
        return "yolo", root, split
    for labels in (data / "Annotations", data / "annotations", data / split, data):
        if labels.is_dir() and next(labels.glob("*.xml"), None) is not None:
            return "voc", root, split
    files = sorted(path.name for path in data.glob("*.json"))
    hint = f"; it holds {', '.join(files[:5])}: give the file itself, and --images" if files else ""
    raise ConfigError(
        f"{data}: no dataset that is known: expected data.yaml (YOLO), XML files (VOC), "
        f"{ROBOFLOW} (Roboflow) or annotations/instances_{split}2017.json (COCO){hint}"
    )


def _store_name(data: Path, *, split: str) -> str:
    """Named after the dataset; the digest keeps two of one name apart."""
    stem = data.stem if data.is_file() else data.name
    digest = hashlib.sha256(json.dumps([str(data.absolute()), split]).encode()).hexdigest()
    return f"{stem or 'data'}-{split}-{digest[:6]}.zarr"
