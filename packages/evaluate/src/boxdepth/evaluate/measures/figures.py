"""Measures as matplotlib figures, drawn without pyplot; needs the extra `figures`.

Names of classes are text: `parse_math=False` keeps a `$` from being read as a formula.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from boxdepth.evaluate.measures.calibration import Calibration
    from boxdepth.evaluate.measures.confusion import ConfusionMatrix
    from boxdepth.evaluate.measures.operating_point import OperatingPoint, OperatingPoints

# More classes have no room for their names, more cells none for their counts.
_CLASSES, _COUNTED, _POINTS = 30, 16, 40
_GOOD, _BAD = "#0072b2", "#d55e00"


def confusion_figure(matrix: "ConfusionMatrix") -> Figure:
    """Counts, a cell as dark as its share of its row; the last row by its share of the column."""
    size = min(len(matrix.labels), _CLASSES + 2)
    figure = Figure(figsize=(3 + 0.34 * size, 2.6 + 0.34 * size), layout="constrained")
    draw_confusion(figure.add_subplot(), matrix)
    return figure


def calibration_figure(calibration: "Calibration") -> Figure:
    """Share of right detections by score, beside the diagonal that scores promise."""
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    draw_calibration(figure.add_subplot(), calibration)
    return figure


def points_figure(points: "OperatingPoints") -> Figure:
    """Precision, recall and F1 of all classes pooled, and of each at its own best threshold."""
    rows = min(len(points.per_class), _POINTS) + 1
    figure = Figure(figsize=(6, 1.5 + 0.24 * rows), layout="constrained")
    draw_points(figure.add_subplot(), points)
    return figure


def measures_figure(
    points: "OperatingPoints", matrix: "ConfusionMatrix", calibration: "Calibration"
) -> Figure:
    """The three beside each other."""
    size = min(len(matrix.labels), _CLASSES + 2)
    figure = Figure(figsize=(12 + 0.34 * size, max(4.0, 2.6 + 0.34 * size)), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    draw_points(first, points)
    draw_confusion(second, matrix)
    draw_calibration(third, calibration)
    return figure


def draw_confusion(axes: Axes, matrix: "ConfusionMatrix") -> None:
    """`confusion_figure` into given axes."""
    part = matrix.worst(_CLASSES)
    shares = part.shares()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    places = range(len(part.labels))
    axes.set_xticks(places, part.labels, rotation=90, parse_math=False)
    axes.set_yticks(places, part.labels, parse_math=False)
    axes.set(xlabel="predicted", ylabel="annotated")
    if len(part.labels) > _COUNTED:
        return
    for row, column in np.argwhere(part.counts > 0).tolist():
        ink = "white" if shares[row, column] > 0.6 else "black"
        count = f"{part.counts[row, column]}"
        axes.text(column, row, count, ha="center", va="center", color=ink, fontsize=7)


def draw_calibration(axes: Axes, calibration: "Calibration") -> None:
    """`calibration_figure` into given axes."""
    edges, full = calibration.edges, calibration.count > 0
    width = np.diff(edges)
    axes.bar(
        edges[:-1][full], calibration.precision[full], width[full] * 0.94, align="edge", color=_GOOD
    )
    axes.plot([0, 1], [0, 1], "--", color=_BAD)
    axes.set_box_aspect(1)
    error = "undefined" if calibration.ece is None else f"{calibration.ece:.3f}"
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="precision at IoU 0.5",
             title=f"expected calibration error {error}")  # fmt: skip


def draw_points(axes: Axes, points: "OperatingPoints") -> None:
    """`points_figure` into given axes; of many classes, those of lowest F1."""
    classes = sorted(points.per_class.items(), key=lambda item: item[1].f1 or 0.0)[:_POINTS]
    rows: Mapping[str, OperatingPoint] = {"all, one threshold": points.overall, **dict(classes)}
    for key, marker, colour in (("precision", "<", _BAD), ("recall", ">", _GOOD), ("f1", "o", "k")):
        values = [getattr(point, key) for point in rows.values()]
        places = [place for place, value in enumerate(values) if value is not None]
        found = [value for value in values if value is not None]
        label = "F1" if key == "f1" else key
        axes.plot(found, places, marker, color=colour, label=label, markersize=5)
    axes.set_yticks(range(len(rows)), list(rows), parse_math=False)
    axes.set(xlim=(-0.02, 1.02), xlabel="at IoU 0.5 and the best threshold")
    axes.grid(axis="x", alpha=0.3)
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
