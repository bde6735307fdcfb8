"""What layouts of one label file an image have in common: images, then their labels, counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxdepth.depthgen.datasets.fields import Notes
from boxdepth.depthgen.datasets.folder import measure_images
from boxdepth.depthgen.datasets.paths import ImageFolder
from boxdepth.depthgen.datasets.records import (
    Annotation,
    Dataset,
    ImageFile,
    OnBad,
    RecordBuilder,
    settle,
)
from boxdepth.depthgen.store.errors import (
    ConfigError,
    EnvironmentFailure,
    environment_failure,
    is_of_the_machine,
)
from boxdepth.depthgen.store.schema import Category

MAX_LABEL_BYTES = 16 << 20


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
        root: The image folder.
        names: Images of the split, relative to it.
        classes: In the order of their labels; ``None``: those that are met, in order of names.
        read: From an image to its labels. It raises ``ValueError`` for a file that cannot be used.
    """

    name: str
    split: str
    source: Path
    folder: ImageFolder
    names: Sequence[str]
    classes: Sequence[str] | None
    read: Callable[[ImageFile, Notes], Sequence[Label]]
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
            raise ConfigError(f"{self.source}: no image of split {self.split!r} in it")
        images, problems = measure_images(self.folder, self.names)
        labels: dict[str, Sequence[Label]] = {}
        for name, image in images.items():
            try:
                labels[name] = self.read(image, self.notes)
            except EnvironmentFailure:
                raise
            except ValueError as error:
                problems.append(f"{name!a}: {error}")
        rejected = settle(problems, source=self.source, on_bad=self.on_bad)
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

    def _classes(self, labels: dict[str, Sequence[Label]]) -> dict[str, int]:
        met = sorted({label.name for found in labels.values() for label in found})
        return {name: k for k, name in enumerate(met if self.classes is None else self.classes)}


def _annotations(found: Sequence[Label], classes: dict[str, int], start: int) -> list[Annotation]:
    return [
        Annotation(xyxy=item.xyxy, label=classes[item.name], id=start + k, mask=item.mask)
        for k, item in enumerate(found)
    ]


def read_label_file(path: Path) -> bytes | None:
    """The bytes of a label file; ``None`` where there is none.

    Raises:
        ValueError: It is too large, or not a plain file.
        EnvironmentFailure: The disk fails.
    """
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise ValueError(f"{path.name}: more than {MAX_LABEL_BYTES >> 20} MB of labels")
        return path.read_bytes()
    except OSError as error:
        if is_of_the_machine(error):
            raise environment_failure(error, path) from error
        raise ValueError(f"{path.name}: {error.strerror}") from error


def read_class_list(path: Path) -> list[str] | None:
    """Class names, one a line (``classes.txt``); ``None`` where there is no such file."""
    data = read_label_file(path)
    if data is None:
        return None
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
