"""The confusion matrix and the reliability curve as pictures (inline SVG) and tables."""

import csv
import io

from markupsafe import Markup, escape

from boxdepth.evaluate.measures import Calibration, ConfusionMatrix
from boxdepth.evaluate.report.charts import UNIT, axes, frame

# Classes shown: more have no room for their names on a phone.
SHOWN = 12
_SIDE, _NAMES, _LETTERS = 360, 92, 13
_WIDE = set("MW@%mw<>=+~…")
_NARROW = set(" !'(),./:;I[]fijlrt|")
_GOOD, _BAD = "#0072b2", "#d55e00"
_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#1b1f24}.count{font-size:11px}"
    ".cell{stroke:#d9dee3}svg{background:#fff}</style>"
)


def confusion_chart(matrix: ConfusionMatrix) -> Markup:
    """Rows are annotations, columns predictions; a cell is as dark as its share of its row.

    The last row (detections of nothing) is shaded by its share of the column instead.
    """
    part = matrix.worst(SHOWN)
    size = len(part.labels)
    step = (_SIDE - _NAMES) / size
    counts, shares = part.counts.tolist(), part.shares().tolist()
    pieces = []
    for row in range(size):
        for column in range(size):
            words = _words(part, row, column)
            pieces.append(
                f'<g transform="translate({_NAMES + column * step:.1f},{_NAMES + row * step:.1f})">'
                f"<title>{escape(words)}</title>"
                + _cell(counts[row][column], shares[row][column], step, row == column)
                + "</g>"
            )
    return Markup(
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="confusion matrix">'
        f"{_labels(part.labels, step)}{''.join(pieces)}</svg>"
    )


def confusion_svg(matrix: ConfusionMatrix) -> str:
    """`confusion_chart` as a file of its own."""
    chart = str(confusion_chart(matrix))
    head, rest = chart.split(">", 1)
    size = 'xmlns="http://www.w3.org/2000/svg" width="900" height="900"'
    return f"{head.replace('<svg', f'<svg {size}', 1)}>{_STYLE}{rest}\n"


def confusion_csv(matrix: ConfusionMatrix) -> str:
    """All counts as a table: a row for each annotated class, a column for each predicted one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["annotated \\ predicted", *matrix.labels])
    for label, counts in zip(matrix.labels, matrix.counts.tolist(), strict=True):
        writer.writerow([label, *counts])
    return text.getvalue()


def reliability_chart(calibration: Calibration) -> Markup:
    """Precision of each bin of scores as a bar; the diagonal is what scores promise."""
    left, top, right, bottom = frame(1.0)
    edges = calibration.edges.tolist()
    bars = []
    for place, (count, precision) in enumerate(
        zip(calibration.count.tolist(), calibration.precision.tolist(), strict=True)
    ):
        if not count:
            continue
        low, high = left + edges[place] * (right - left), left + edges[place + 1] * (right - left)
        up = bottom - precision * (bottom - top)
        bars.append(
            f'<rect x="{low + 0.5:.1f}" y="{up:.1f}" width="{high - low - 1:.1f}" '
            f'height="{max(bottom - up, 1.5):.1f}" fill="{_GOOD}">'
            f"<title>scores {edges[place]:.2f} to {edges[place + 1]:.2f}: {count:,} detections, "
            f"{precision:.0%} right</title></rect>"
        )
    body = axes(x="score", y="precision", top=1.0, ticks=UNIT)
    line = (
        f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{top}" stroke="{_BAD}" '
        'stroke-width="2" stroke-dasharray="5 4"/>'
    )
    return Markup(
        f'<svg viewBox="0 0 {right + left - 28} {bottom + 38}" role="img" '
        f'aria-label="precision by score">{body}{"".join(bars)}{line}</svg>'
    )


def _cell(count: int, share: float, step: float, diagonal: bool) -> str:
    colour = _GOOD if diagonal else _BAD
    rect = (
        f'<rect class="cell" width="{step:.1f}" height="{step:.1f}" fill="{colour}" '
        f'fill-opacity="{share:.3f}" stroke="var(--line)" stroke-width=".5"/>'
    )
    if not count:
        return rect
    size = min(11.0, (step - 1) / (0.66 * len(_short(count))))  # digits fill their cell at most
    ink = ";fill:#fff" if share > 0.8 else ""
    return (
        f'{rect}<text class="count" x="{step / 2:.1f}" y="{step / 2 + 0.36 * size:.1f}" '
        f'text-anchor="middle" style="font-size:{size:.1f}px{ink}">{_short(count)}</text>'
    )


def _labels(labels: tuple[str, ...], step: float) -> str:
    parts = []
    for place, label in enumerate(labels):
        text = label if len(label) <= _LETTERS else label[: _LETTERS - 1] + "…"
        name, fit = escape(text), _squeezed(text)
        middle = _NAMES + (place + 0.5) * step
        upright = f"translate({middle + 4:.1f},{_NAMES - 5}) rotate(-90)"
        parts.append(
            f'<text x="{_NAMES - 5}" y="{middle + 4:.1f}" text-anchor="end"{fit}>{name}</text>'
            f'<text transform="{upright}"{fit}>{name}</text>'
        )
    return "".join(parts)


def _squeezed(text: str) -> str:
    """An attribute that makes wide text fit its margin, whatever font the reader has."""
    wide = sum(
        12.0 if ord(c) > 0x2E80 or c in _WIDE else 5.0 if c in _NARROW else 8.0 for c in text
    )
    room = _NAMES - 8
    return f' textLength="{room}" lengthAdjust="spacingAndGlyphs"' if wide > room else ""


def _words(matrix: ConfusionMatrix, row: int, column: int) -> str:
    count = matrix.counts[row, column]
    annotated, predicted = matrix.labels[row], matrix.labels[column]
    last = len(matrix.labels) - 1
    if row == column:
        return "" if row == last else f"{annotated} found: {count:,}"
    if row == last:
        return f"{predicted} where nothing is annotated: {count:,}"
    if column == last:
        return f"{annotated} not found: {count:,}"
    return f"{annotated} taken for {predicted}: {count:,}"


def _short(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.0f}k" if count < 10**6 else "1M+"
