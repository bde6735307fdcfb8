"""What a COCO evaluation leaves: numbers, where they come from, and what there is to say."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boxdepth.evaluate.coco_ap.protocol import CocoNumbers, CocoSummary
from boxdepth.evaluate.results.tables import markdown, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = ("segm", "bbox", "boundary")
COLUMNS = {
    "AP": "ap", "AP50": "ap50", "AP75": "ap75", "APs": "ap_small", "APm": "ap_medium",
    "APl": "ap_large",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """A random part of the images scored by both backends.

    Attributes:
        images: how many.
        largest_difference: of any of the numbers, overall or of a class.
    """

    images: int
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {"images": self.images, "largest_difference": self.largest_difference}


@dataclass(frozen=True, kw_only=True)  # with slots, setting a property would be a TypeError
class CocoReport:
    """What `evaluate_coco` found.

    Attributes:
        backend: which implementation matched and counted: "hotcoco" or "pycocotools".
        segm, bbox, boundary: one summary per IoU type asked for and possible, else None.
        images: images in the annotations.
        predictions: detections scored.
        warnings: what was filled in, left out or looks odd, in sentences.
        cross_check: how far the backends are apart, where that was asked for.
    """

    backend: str
    segm: CocoSummary | None
    bbox: CocoSummary | None
    boundary: CocoSummary | None
    images: int
    predictions: int
    warnings: tuple[str, ...]
    cross_check: CrossCheck | None = None

    @property
    def backend_version(self) -> str:
        """Version of the backend."""
        return _version(self.backend)

    @property
    def version(self) -> str:
        """Version of boxdepth-evaluate."""
        return _version("boxdepth-evaluate")

    @property
    def summaries(self) -> dict[str, CocoSummary]:
        """The shapes that were compared, by name."""
        found = {shape: getattr(self, shape) for shape in SHAPES}
        return {shape: summary for shape, summary in found.items() if summary is not None}

    def to_json(self) -> dict[str, Any]:
        """As `evaluate ap --json` prints it."""
        report: dict[str, Any] = {
            "protocol": "coco",
            "backend": self.backend,
            "backend_version": self.backend_version,
            "version": self.version,
            "segm": self.segm.to_json() if self.segm else None,
            "bbox": self.bbox.to_json() if self.bbox else None,
            "images": self.images,
            "predictions": self.predictions,
            "warnings": list(self.warnings),
        }
        if self.boundary:
            report["boundary"] = self.boundary.to_json()
        if self.cross_check:
            report["cross_check"] = self.cross_check.to_json()
        return report

    def table(self, *, per_class: bool = False) -> str:
        """The numbers in percent as a Markdown table; a dash where undefined."""
        rows: list[tuple[str, ...]] = []
        limits: list[str] = []
        for shape, summary in self.summaries.items():
            limits = [f"AR{limit}" for limit in summary.ar]
            rows.append((shape, "all", *cells(summary)))
            for name, numbers in summary.per_class.items() if per_class else ():
                rows.append((shape, name, *cells(numbers)))
        return markdown(("", "class", *COLUMNS, *limits), rows)

    def figure(self) -> "Figure":
        """Precision over recall at IoU 0.50, 0.75 and over all ten, one panel a shape.

        Raises:
            ImportError: matplotlib, the extra `figures`, is not installed.
        """
        from boxdepth.evaluate.coco_ap.figure import precision_recall_figure

        return precision_recall_figure(self.summaries)


def cells(numbers: CocoNumbers) -> list[str]:
    """AP and its parts, then every AR, in percent."""
    values = [getattr(numbers, key) for key in COLUMNS.values()] + list(numbers.ar.values())
    return [percent(value) for value in values]


def _version(distribution: str) -> str:
    from importlib.metadata import version  # a tenth of what a score of 500 images takes

    return version(distribution)
