"""What is to be made of a dataset, and what was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from boxdepth.depthgen.datasets.records import Dataset, OnBad, settle
from boxdepth.depthgen.models import DEFAULT_MODEL, SCENES_ONLY
from boxdepth.depthgen.store import DepthInfo, ImageRecord, StoreAttributes, plan_store
from boxdepth.depthgen.store.errors import environment_failure, is_of_the_machine
from boxdepth.depthgen.store.remote_file import RemoteFile

if TYPE_CHECKING:
    from boxdepth.depthgen.predictor import Predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to make of a dataset.

    Attributes:
        store: Path or URL of the store.
        grid: (rows, columns) of stored depth.
        unit: Images of one unit.
        batch_size: Images that go through the model together.
        workers: Threads that read and decode ahead.
        on_bad: ``error`` stops at the unit that holds a bad image, ``skip`` leaves bad images out.
        masks: Store the dataset's masks too.
        overwrite: Start anew if there is a store.
    """

    dataset: Dataset
    predictor: "Predictor"
    store: Path | str
    grid: tuple[int, int]
    unit: int
    batch_size: int = 8
    workers: int = 2
    on_bad: OnBad = OnBad.error
    masks: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of one unit, or of several together.

    Attributes:
        units: Units written.
        images: Images that were looked at.
        invalid: Images without usable depth (constant or not finite).
        redone: Images that were computed again in fp32.
        turned: Images whose EXIF asks to be turned, which is ignored.
        deep: Images of 16 bits a channel, of which the upper eight are used.
        nbytes: Bytes of the objects written.
        model_seconds: Time inside the model.
    """

    units: int = 0
    images: int = 0
    invalid: int = 0
    redone: int = 0
    turned: int = 0
    deep: int = 0
    nbytes: int = 0
    model_seconds: float = 0.0

    def __add__(self, other: "UnitReport") -> "UnitReport":
        return UnitReport(
            **{
                item.name: getattr(self, item.name) + getattr(other, item.name)
                for item in fields(self)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A finished store, and what this run did for it.

    Attributes:
        images: Images of the dataset.
        skipped: Images that the store leaves out, with the reason, by id.
        shards: Units of the store.
        done: What this run did.
        seconds: How long it took.
    """

    images: int
    skipped: Mapping[int, str]
    shards: int
    done: UnitReport
    seconds: float

    @property
    def usable(self) -> int:
        """Images that the store holds."""
        return self.images - len(self.skipped)

    @property
    def images_per_second(self) -> float:
        """Of this run."""
        return self.done.images / self.seconds if self.seconds else 0.0


def file_sizes(records: Sequence[ImageRecord]) -> Int64[np.ndarray, " n"]:
    """Size of every image file in bytes; 0 where there is no file.

    Raises:
        EnvironmentFailure: The disk fails.
    """

    def size(record: ImageRecord) -> int:
        if isinstance(record.path, RemoteFile):
            return record.path.nbytes
        try:
            return record.path.stat().st_size if record.path and record.path.is_file() else 0
        except OSError as error:
            if is_of_the_machine(error):
                raise environment_failure(error, str(record.path)) from error
            return 0

    return np.array([size(record) for record in records], dtype=np.int64)


def plan_job(job: Job) -> tuple[StoreAttributes, Int64[np.ndarray, " n"]]:
    """Fix the store's attributes and look at every image file's size.

    Raises:
        DataError: Image files are missing (with ``on_bad="error"``).
    """
    records = job.dataset.records
    nbytes = file_sizes(records)
    missing = [
        f"image {record.id}: no file, or an empty one, at {record.path}"
        for record, size in zip(records, nbytes, strict=True)
        if size == 0
    ]
    settle(missing, source=job.store, on_bad=job.on_bad)
    predictor = job.predictor
    generator = predictor.provenance() | {"batch_size": job.batch_size}
    if predictor.files.label == DEFAULT_MODEL and not job.dataset.drawn:
        generator["warning"] = SCENES_ONLY
    attributes = plan_store(
        records,
        dataset=job.dataset.name,
        split=job.dataset.split,
        categories=job.dataset.categories,
        image_nbytes=nbytes,
        depth=DepthInfo(kind=predictor.kind, sign=predictor.sign, grid=job.grid),
        generator=generator,
        unit=job.unit,
        masks=job.masks,
    )
    return attributes, nbytes
