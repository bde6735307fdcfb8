"""A store from a dataset and depth that somebody else has made or measured."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64

from boxdepth.depthgen.datasets.records import Dataset, OnBad, settle
from boxdepth.depthgen.exchange.depth_files import DepthSource
from boxdepth.depthgen.exchange.depth_grid import to_grid
from boxdepth.depthgen.generate.job import file_sizes
from boxdepth.depthgen.store import (
    ConfigError,
    DataError,
    DepthInfo,
    EnvironmentFailure,
    ImageRecord,
    StoreAttributes,
    StoreWriter,
    UnitRows,
    decode_image,
    open_writer,
    plan_store,
)
from boxdepth.depthgen.store.depth import is_informative
from boxdepth.depthgen.store.errors import environment_failure, is_of_the_machine, summarise
from boxdepth.depthgen.store.schema import Kind, Sign

MeaningKind = Literal["metric", "inverse", "height"]
MeaningSign = Literal["near-large", "far-large"]

_KINDS: Mapping[MeaningKind, Kind] = {
    "metric": "metric", "inverse": "inverse_relative", "height": "inverse_relative",
}  # fmt: skip
_SIGNS: Mapping[MeaningSign, Sign] = {"near-large": "near_is_large", "far-large": "far_is_large"}
_RESIZE = "area mean of the measured pixels"
_LARGEST_STRETCH = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthMeaning:
    """What the numbers of a depth map say.

    Attributes:
        kind: ``metric``: distance, in steps of ``metres``; ``inverse``: disparity or inverse
            depth, of any scale; ``height``: above a plane that the camera looks down on, of any
            scale.
        sign: Whether the nearer of two points has the larger number; ``None``: as the kind has it
            (metric far, the others near).
        metres: Metres of one step, for ``metric``.
        holes: Numbers that mean "not measured", beside everything that is not finite.
    """

    kind: MeaningKind
    sign: MeaningSign | None = None
    metres: float = 1.0
    holes: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if self.kind == "metric" and self.sign == "near-large":
            raise ConfigError("metric depth is a distance: far is large; is it inverse or height?")
        if not (math.isfinite(self.metres) and self.metres > 0):
            raise ConfigError(f"{self.metres} metres a step: a number above 0 is expected")

    def info(self, *, grid: tuple[int, int]) -> DepthInfo:
        """The same, as a store has it."""
        sign = self.sign or ("far-large" if self.kind == "metric" else "near-large")
        return DepthInfo(
            kind=_KINDS[self.kind], sign=_SIGNS[sign], grid=grid, resize=_RESIZE, holes=True
        )

    def measured(
        self, values: np.ndarray
    ) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Depth (metres, where metric), and where it was measured."""
        seen = np.isfinite(values) & ~np.isin(values, self.holes)
        if self.kind == "metric":
            seen &= np.where(seen, values, 0) >= 0
        depth = np.where(seen, values, 0).astype(np.float64)
        return (depth * (self.metres if self.kind == "metric" else 1.0)).astype(np.float32), seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was imported.

    Attributes:
        images: Images of the dataset.
        skipped: Images that were left out, with the reason, by id.
        without_depth: Images of this run whose depth is missing or holds no information.
        hole_share: Share of the cells of this run's depth that are holes.
        shards: Units of the store.
        nbytes: Bytes written now.
    """

    images: int
    skipped: Mapping[int, str]
    without_depth: int
    hole_share: float
    shards: int
    nbytes: int


@dataclass(slots=True)
class _Tally:
    nbytes: int = 0
    without_depth: int = 0
    cells: int = 0
    holes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    dataset: Dataset
    source: DepthSource
    meaning: DepthMeaning
    grid: tuple[int, int]
    on_bad: OnBad


def import_depth(
    dataset: Dataset,
    source: DepthSource,
    meaning: DepthMeaning,
    *,
    store: Path | str,
    grid: tuple[int, int],
    unit: int = 256,
    masks: bool = False,
    on_bad: OnBad = OnBad.error,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Write a store with the dataset's images and boxes and the depth of ``source``.

    Interrupted, the same call goes on where it was, like ``generate``.

    Raises:
        DataError: Images or depth maps are missing or unusable (with ``on_bad=OnBad.error``).
        StoreMismatchError: The store was started from other inputs.
        EnvironmentFailure: The disk or the network fails.
    """
    plan = _Plan(dataset=dataset, source=source, meaning=meaning, grid=grid, on_bad=on_bad)
    records, nbytes = dataset.records, file_sizes(dataset.records)
    missing = [
        f"image {record.id}: no file, or an empty one, at {record.path}"
        for record, size in zip(records, nbytes, strict=True)
        if size == 0
    ]
    settle(missing, source=store, on_bad=on_bad)
    attributes = _attributes(plan, nbytes, unit=unit, masks=masks)
    tally = _Tally()
    with open_writer(
        store, attributes, records, overwrite=overwrite, rejected=dataset.report.rejected
    ) as writer:
        pending = writer.pending()
        for index in pending:
            _write_unit(plan, writer, index, tally)
            if progress:
                progress(writer.rows(index).stop, len(records))
        if pending or not writer.finished:
            writer.finish()
        skipped = writer.skipped()
    return Imported(
        images=len(records),
        skipped=skipped,
        without_depth=tally.without_depth,
        hole_share=tally.holes / tally.cells if tally.cells else 0.0,
        shards=attributes.units,
        nbytes=tally.nbytes,
    )


def _attributes(
    plan: _Plan, image_nbytes: Int64[np.ndarray, " n"], *, unit: int, masks: bool
) -> StoreAttributes:
    dataset, meaning = plan.dataset, plan.meaning
    return plan_store(
        dataset.records,
        dataset=dataset.name,
        split=dataset.split,
        categories=dataset.categories,
        image_nbytes=image_nbytes,
        depth=meaning.info(grid=plan.grid),
        generator={
            "model": "imported",
            "kind": meaning.kind,
            "metres": meaning.metres,
            "holes": list(meaning.holes),
            "depth_files": plan.source.digest(),
        },
        unit=unit,
        masks=masks,
    )


def _write_unit(plan: _Plan, writer: StoreWriter, unit: int, tally: _Tally) -> None:
    images: list[bytes | None] = []
    maps: list[Float32[np.ndarray, "rows columns"] | None] = []
    seen: list[Bool[np.ndarray, "rows columns"] | None] = []
    skipped: dict[int, str] = {}
    for record in writer.members(unit):
        data, depth, measured = None, None, None
        try:
            data = _image(record)
            found = _depth(plan, record)
        except EnvironmentFailure:
            raise
        except DataError as error:
            data, found = None, None
            skipped[record.id] = str(error)
        if found is not None and is_informative(found[0]):
            depth, measured = found
            tally.cells += measured.size
            tally.holes += int((~measured).sum())
        elif data is not None:
            tally.without_depth += 1
        images.append(data)
        maps.append(depth)
        seen.append(measured)
    if skipped and plan.on_bad is OnBad.error:
        problems = [f"image {number}: {reason}" for number, reason in skipped.items()]
        raise DataError(
            f"{len(problems)} bad images or depth maps (mend them and repeat, or leave them out "
            f"with --on-bad skip; what is finished stays):\n{summarise(problems)}"
        )
    rows = UnitRows(images=images, depth=maps, measured=seen, skipped=skipped)
    tally.nbytes += writer.write_unit(unit, rows)


def _image(record: ImageRecord) -> bytes:
    try:
        data = record.path.read_bytes() if record.path else b""
    except OSError as error:
        if is_of_the_machine(error):
            raise environment_failure(error, str(record.path)) from error
        raise DataError(str(error)) from error
    decode_image(data, expected_size=(record.height, record.width), name=record.name)
    return data


def _depth(
    plan: _Plan, record: ImageRecord
) -> tuple[Float32[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]] | None:
    values = plan.source.read(record)
    if values is None:
        if plan.on_bad is OnBad.error:
            raise DataError(
                f"{record.name!a}: no depth map of its name or id; with --on-bad skip it is kept "
                "without depth"
            )
        return None
    height, width = values.shape
    if abs(height * record.width / (width * record.height) - 1) > _LARGEST_STRETCH:
        raise DataError(
            f"{record.name!a}: its depth map is {height}x{width} (height x width), the image "
            f"{record.height}x{record.width}: another shape, so another picture or a crop"
        )
    depth, measured = plan.meaning.measured(values)
    return to_grid(depth, measured, grid=plan.grid)
