"""A whole data set of scenes in a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from boxdepth.depthgen.datasets.sample.cityscapes import CityscapesWriter
from boxdepth.depthgen.datasets.sample.coco import CocoWriter
from boxdepth.depthgen.datasets.sample.palette import CAMOUFLAGED_SHARE
from boxdepth.depthgen.datasets.sample.render import check_size, render_scene
from boxdepth.depthgen.store.errors import ConfigError

Layout = Literal["coco", "cityscapes"]
Part = Literal["train", "val", "depth-train", "depth-test"]

_STREAMS: dict[Part, int] = {"train": 0, "val": 1, "depth-train": 2, "depth-test": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """What :func:`write_sample` wrote.

    Attributes:
        root: The folder; what ``depthgen run --data-root`` takes.
        layout: ``coco`` or ``cityscapes``.
        train: Scenes in the training split.
        val: Scenes in the validation split.
        instances: Shapes in both.
        camouflaged: Shapes that wear the colours of what is behind them.
    """

    root: Path
    layout: Layout
    train: int
    val: int
    instances: int
    camouflaged: int


def scene_seed(seed: int, part: Part, index: int) -> np.random.SeedSequence:
    """The seed of one scene.

    Parts never share a scene, whatever the seeds: ``train`` and ``val`` are what
    :func:`write_sample` draws, ``depth-train`` and ``depth-test`` are kept for the embedded depth
    model.

    Args:
        seed: Seed of the data set, at least 0.
        part: Which stream of scenes.
        index: Number of the scene in it, at least 0.
    """
    return np.random.SeedSequence(seed, spawn_key=(_STREAMS[part], index))


def _check(
    layout: str, train: int, val: int, size: tuple[int, int], seed: int, camouflage: float
) -> None:
    check_size(size)
    if layout not in ("coco", "cityscapes"):
        raise ConfigError(f"layout is {layout!r}; expected 'coco' or 'cityscapes'")
    if min(train, val, seed) < 0 or train + val == 0:
        raise ConfigError(
            f"train {train}, val {val}, seed {seed}: none may be negative, one split not empty"
        )
    if not 0 <= camouflage <= 1:
        raise ConfigError(f"camouflage is {camouflage:g}; expected a share of the shapes, 0 to 1")


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder: name a new one, or empty it")


def write_sample(
    out: Path,
    *,
    layout: Layout = "coco",
    train: int = 1000,
    val: int = 200,
    size: tuple[int, int] = (192, 256),
    seed: int = 0,
    camouflage: float = CAMOUFLAGED_SHARE,
    progress: Callable[[int, int], None] | None = None,
) -> SampleReport:
    """Draw scenes into a folder, in COCO's or Cityscapes' layout, with exact depth beside them.

    The same arguments give the same bytes with the same versions of numpy and Pillow on the same
    type of machine. A scene depends on the seed, its split, its index and the size only: a larger
    set begins with the scenes of a smaller one.

    Args:
        out: A folder that is new or empty.
        layout: ``coco`` (``train2017/``, ``val2017/``, ``annotations/``) or ``cityscapes``
            (``leftImg8bit/``, ``gtFine/``). Images are JPEG of quality 95 in the former, PNG in the
            latter, as the originals are. Both have ``depth/``: 16-bit PNGs of exact inverse depth
            in units of 1/65535 per metre.
        train: Scenes in the training split.
        val: Scenes in the validation split.
        size: (height, width) in pixels, at least 48 each.
        seed: Any number from 0.
        camouflage: Share of the shapes that wear the colours of what is behind them, in [0, 1].
        progress: Told (scenes done, scenes in all) after each scene.

    Returns:
        What was written.

    Raises:
        ConfigError: An argument is out of range, or ``out`` holds something already.
    """
    _check(layout, train, val, size, seed, camouflage)
    _check_folder(out)
    writer_of = CocoWriter if layout == "coco" else CityscapesWriter
    done = instances = camouflaged = 0
    splits: tuple[tuple[Literal["train", "val"], int], ...] = (("train", train), ("val", val))
    for split, count in splits:
        writer = writer_of(out, split)
        for index in range(count):
            scene = render_scene(scene_seed(seed, split, index), size, camouflage=camouflage)
            writer.add(index, scene)
            instances += len(scene.labels)
            camouflaged += int(scene.camouflaged.sum())
            done += 1
            if progress is not None:
                progress(done, train + val)
        writer.finish()
    return SampleReport(
        root=out,
        layout=layout,
        train=train,
        val=val,
        instances=instances,
        camouflaged=camouflaged,
    )
