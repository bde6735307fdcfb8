"""A report's content as one HTML file that needs nothing but itself."""

from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from boxdepth.evaluate.error_kinds import KINDS
from boxdepth.evaluate.measures import Slice
from boxdepth.evaluate.report.charts import legend, line_chart, stacked_histogram
from boxdepth.evaluate.report.content import ReportContent
from boxdepth.evaluate.report.gallery import COLOURS
from boxdepth.evaluate.report.matrix import SHOWN, confusion_chart, reliability_chart

NAMES = {"segm": "masks", "bbox": "boxes", "boundary": "boundaries"}
PRECISIONS = {
    "AP": ("ap", "mean over IoU 0.50 to 0.95"),
    "AP50": ("ap50", "IoU 0.50"),
    "AP75": ("ap75", "IoU 0.75"),
    "AP small": ("ap_small", "area up to 32² pixels"),
    "AP medium": ("ap_medium", "area 32² to 96²"),
    "AP large": ("ap_large", "area from 96²"),
}
"""AP, whatever counts; recall is named by how many detections did."""
EXPLAINED = {
    "classification": "right place, wrong class",
    "localisation": "right class, IoU 0.1 to 0.5",
    "both": "wrong class and IoU 0.1 to 0.5",
    "duplicate": "found already by a better detection",
    "background": "nothing is there",
    "missed": "annotated, found by nobody",
}
_LINES = ("#0072b2", "#d55e00", "#009e73")


def render(content: ReportContent) -> str:
    """The HTML text."""
    environment = Environment(
        loader=PackageLoader("boxdepth.evaluate.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    template = environment.get_template("report.html.j2")
    return template.render(
        content=content,
        names=NAMES,
        rows=_rows(content),
        most=content.summary.curves.max_detections[-1],
        explained=EXPLAINED,
        colours=COLOURS,
        kinds=KINDS,
        **_charts(content),
        classes=_classes(content),
        slices=_slices(content),
        hidden_classes=max(0, len(content.measures.confusion.labels) - 1 - SHOWN),
        largest_gain=max([*content.errors.gains.values(), 1e-9]),
    )


def _rows(content: ReportContent) -> list[tuple[str, str, list[float | None]]]:
    """Name, meaning, and the number of masks and of boxes."""
    found = [summary for summary in (content.coco.segm, content.coco.bbox) if summary]
    named = [(name, meaning, [getattr(s, key) for s in found])
             for name, (key, meaning) in PRECISIONS.items()]  # fmt: skip
    for limit in content.summary.ar:
        meaning = f"recall of the best {limit} of each image and class"
        named.append((f"AR {limit}", meaning, [s.ar[limit] for s in found]))
    sizes = ("small", "medium", "large")
    return named + [
        (f"AR {size}", f"the same, {size}", [getattr(s, f"ar_{size}") for s in found])
        for size in sizes
    ]


def percent(value: float | None) -> str:
    """A fraction in percent with one decimal, or a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.1f}"


def _charts(content: ReportContent) -> dict[str, Markup | None]:
    recall = np.linspace(0, 1, 101).tolist()
    lines = {
        name: (recall, precision, colour)
        for (name, precision), colour in zip(content.precision.items(), _LINES, strict=False)
    }
    layers = {
        "right": (content.scores_right, COLOURS["right"]),
        "wrong": (content.scores_wrong, COLOURS["background"]),
    }
    return {
        "curves": line_chart(lines, x="recall", y="precision") if lines else None,
        "histogram": stacked_histogram(
            layers, edges=content.score_edges, x="score", y="detections"
        ),
        "key": legend(COLOURS),
        "confusion": confusion_chart(content.measures.confusion),
        "reliability": reliability_chart(content.measures.calibration),
    }


SLICED = {
    "size": "By size, thirds of all objects",
    "overlap": "By overlap with another object's box",
    "depth": "By distance, thirds of all objects",
}


def _slices(content: ReportContent) -> dict[str, list[Slice]]:
    """Headline to slices, in the order of computation."""
    groups: dict[str, list[Slice]] = {}
    for part in content.measures.slices:
        groups.setdefault(SLICED[part.by], []).append(part)
    return groups


def _classes(content: ReportContent) -> list[dict[str, Any]]:
    rows = [
        {"name": name, "numbers": numbers.to_json(), "count": content.class_counts[name]}
        for name, numbers in content.summary.per_class.items()
        if numbers.ap is not None
    ]
    return sorted(rows, key=lambda row: -row["numbers"]["ap"])
