"""What layouts of one label file an image have in common: images, then their labels, counted."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxdepth.depthgen.datasets.fields import Notes
from boxdepth.depthgen.datasets.folder import AT_ONCE, measure_images
from boxdepth.depthgen.datasets.places import Images, Tree
from boxdepth.depthgen.datasets.records import (
    Annotation,
    Dataset,
    ImageFile,
    OnBad,
    RecordBuilder,
    settle,
)
from boxdepth.depthgen.store.errors import ConfigError, EnvironmentFailure
from boxdepth.depthgen.store.schema import Category


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One line of a label file: its class, its box in pixels, and its outline, if it has one."""

    name: str
    xyxy: tuple[float, float, float, float]
    mask: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class LabelledImages:
    """A split whose labels lie in one file an image.

    Attributes:
        tree: The dataset's root.
        folder: The image folder.
        names: Images of the split, relative to it.
        classes: In the order of their labels; ``None``: those that are met, in order of names.
        label_file: Where the labels of an image lie; without that file it has no objects.
        parse: From a label file to its labels; ``ValueError`` for one that cannot be used.
    """

    name: str
    split: str
    tree: Tree
    folder: Images
    names: Sequence[str]
    classes: Sequence[str] | None
    label_file: Callable[[ImageFile], Path]
    parse: Callable[[bytes, ImageFile, Notes], Sequence[Label]]
    masks: bool = False
    on_bad: OnBad = OnBad.error
    notes: Notes = field(default_factory=Notes)

    def dataset(self) -> Dataset:
        """Read everything; problems of all files are told together.

        Ids of images, classes and boxes count from 1.

        Raises:
            ConfigError: No image at all.
            DataError: Images or label files that cannot be used.
        """
        if not self.names:
            raise ConfigError(f"{self.tree}: no image of split {self.split!r} in it")
        images, problems = measure_images(self.folder, self.names)
        labels: dict[str, Sequence[Label]] = {}
        # A request waits for the network, not for this machine.
        with ThreadPoolExecutor(AT_ONCE) as pool:
            files = pool.map(self._read, images.values())
            for (name, image), data in zip(images.items(), files, strict=True):
                try:
                    labels[name] = self._labels(image, data)
                except ValueError as error:
                    problems.append(f"{name!a}: {error}")
        rejected = settle(problems, source=str(self.tree), on_bad=self.on_bad)
        self.notes.add(
            "image", "a link that leads out of the image folder", self.folder.links_followed
        )
        classes = self._classes(labels)
        builder, start, records = RecordBuilder(masks=self.masks), 1, []
        for name, found in labels.items():
            records.append(builder.build(images[name], _annotations(found, classes, start)))
            start += len(found)
        return Dataset(
            name=self.name,
            split=self.split,
            categories=tuple(Category(id=k + 1, name=text) for text, k in classes.items()),
            records=tuple(records),
            report=builder.report(records, rejected=rejected, notes=self.notes.lines()),
        )

    def _read(self, image: ImageFile) -> bytes | ValueError | None:
        try:
            return self.tree.read(self.label_file(image))
        except EnvironmentFailure:
            raise
        except ValueError as error:
            return error

    def _labels(self, image: ImageFile, data: bytes | ValueError | None) -> Sequence[Label]:
        if isinstance(data, ValueError):
            raise data
        return [] if data is None else self.parse(data, image, self.notes)

    def _classes(self, labels: dict[str, Sequence[Label]]) -> dict[str, int]:
        met = sorted({label.name for found in labels.values() for label in found})
        return {name: k for k, name in enumerate(met if self.classes is None else self.classes)}


def _annotations(found: Sequence[Label], classes: dict[str, int], start: int) -> list[Annotation]:
    return [
        Annotation(xyxy=item.xyxy, label=classes[item.name], id=start + k, mask=item.mask)
        for k, item in enumerate(found)
    ]


def read_class_list(tree: Tree, place: Path) -> list[str] | None:
    """Class names, one a line (``classes.txt``); ``None`` where there is no such file.

    Raises:
        ValueError: It is too large, or not a plain file.
        EnvironmentFailure: The disk or the network fails.
    """
    data = tree.read(place)
    if data is None:
        return None
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
