"""A run on one offline page: curves, health in words, sample masks, slowest and worst images."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from boxdepth.trainer.engine.checkpoint import write_atomically
from boxdepth.trainer.engine.device import choose_device
from boxdepth.trainer.engine.monitors import EXPECTED, MATCHING_SCORE
from boxdepth.trainer.runs.closer import Looked, look_closer
from boxdepth.trainer.runs.samples import kept
from boxdepth.trainer.runs.summary import RunSummary
from boxdepth.trainer.words import counted

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7a3fa0", "#555555")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 240, 64, 26
"""Pixels of a chart at its own size, and of what its axes take."""
POINTS = 400
"""Of a curve; a longer one is thinned, its ends kept."""
STEPS_SHOWN = 6
"""Pictures of a sample image, from the first to the last step."""
WORST = 8

STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1e;--soft:#66666b;--line:#d5d5da;--paper:#fff;
--warn:#a33b00}
@media(prefers-color-scheme:dark){:root{--ink:#ececf0;--soft:#a0a0a8;--line:#3a3a40;--paper:#161618;
--warn:#ff9d66}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1160px;padding:16px;background:var(--paper);
color:var(--ink);font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:24px;margin:0}h2{font-size:18px;margin:32px 0 8px}p{margin:4px 0}
.soft{color:var(--soft)}
.warn{color:var(--warn)}.charts{display:grid;gap:20px;grid-template-columns:repeat(auto-fill,
minmax(min(100%,430px),1fr))}figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto;
display:block}text{fill:var(--soft);font-size:13px}.legend{font-size:13px}
.legend span{margin-right:12px;
white-space:nowrap}.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;
margin-right:4px}.row{display:flex;gap:8px;overflow-x:auto;padding-bottom:6px}.row figure{flex:0 0
auto;width:min(230px,62vw)}.grid{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,
minmax(min(100%,250px),1fr))}img{width:100%;height:auto;border-radius:4px;display:block}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{overflow-wrap:normal;text-align:left;padding:3px 14px 3px 0;border-bottom:
1px solid var(--line);vertical-align:top}
figure figcaption.small{font-weight:400;font-size:13px}
@media(max-width:600px){text{font-size:22px}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]


def write_page(found: RunSummary, file: Path, *, images: int, device: str) -> int:
    """Write a run's page; the number of training images that were looked at for it.

    Args:
        images: how many are looked at, at most; none where the store is gone.
        device: what looks at them, such as ``auto``.

    Raises:
        ConfigError: no such device.
        CheckpointError: no weights to look with.
        DataError: a store that can't be used.
    """
    looked = (
        look_closer(found.folder, images=images, device=choose_device(device)) if images else []
    )
    page = summary_page(found, looked, version=version("boxdepth-trainer"))
    write_atomically(file, page.encode())
    return len(looked)


def summary_page(found: RunSummary, looked: Sequence[Looked], *, version: str) -> str:
    """The HTML text; nothing in it is loaded from anywhere.

    Args:
        looked: training images that were looked at with the run's weights; empty: none were.
    """
    parts = [
        f"<h1>{escape(found.name)}</h1>",
        f'<p class="soft">{escape(str(found.folder))}, iteration {found.step}, BoxDepth '
        f"{escape(version)}</p>",
        *_health(found),
        *_curves(found),
        *_scores(found),
        *_samples(found),
        *_looked(looked),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{escape(found.name)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _health(found: RunSummary) -> Iterable[str]:
    yield "<h2>Health</h2>"
    for text in found.complaints:
        yield f'<p class="warn">{escape(text)}</p>'
    if not found.complaints:
        watched = any(name in EXPECTED for name in found.monitors)
        said = "Every number is where it should be." if watched else "Nothing was watched yet."
        yield f"<p>{said}</p>"
    for note in found.notes:
        yield f'<p class="warn">{escape(note)}</p>'
    rows = [
        f"<tr><td>{escape(name)}</td><td>{found.monitors[name]:.3f}</td>"
        f"<td>{expected.low:g} to {expected.high:g}</td></tr>"
        for name, expected in EXPECTED.items()
        if found.monitors.get(name) is not None
    ]
    if rows:
        yield (
            '<div class="wide"><table><tr><th>number</th><th>now</th><th>expected after the '
            f"warm-ups</th></tr>{''.join(rows)}</table></div>"
        )
    skipped = int(found.reports[-1].get("skipped_steps") or 0) if found.reports else 0
    if skipped:
        yield f'<p class="warn">{skipped} steps were skipped: their update was not finite.</p>'


def _curves(found: RunSummary) -> Iterable[str]:
    names = list(dict.fromkeys(name for row in found.reports for name in row["losses"]))
    charts = [
        chart("Total loss", [Curve(name="total", points=_course(found, "total_loss"))]),
        chart(
            "Loss terms, unweighted",
            [Curve(name=name, points=_course(found, "losses", name)) for name in names],
        ),
        chart("Learning rate", [Curve(name="rate", points=_course(found, "learning_rate"))]),
        chart("Images a second", [Curve(name="speed", points=_course(found, "images_per_second"))]),
        chart(
            "Masks",
            [
                Curve(name=name, points=_course(found, "monitors", name))
                for name in EXPECTED
                if not name.startswith(MATCHING_SCORE)
            ],
        ),
    ]
    yield f'<h2>Curves</h2><div class="charts">{"".join(charts)}</div>'


def _scores(found: RunSummary) -> Iterable[str]:
    if not found.evaluations:
        return
    titles = {"segm_ap": "mask AP", "segm_ap50": "mask AP50", "bbox_ap": "box AP"}
    curves = [
        Curve(
            name=title,
            points=[
                (row["iteration"], 100 * row["val"][key])
                for row in found.evaluations
                if row["val"].get(key) is not None
            ],
        )
        for key, title in titles.items()
    ]
    last = found.evaluations[-1]
    said = ", ".join(
        f"{title} {100 * last['val'][key]:.1f}"
        for key, title in titles.items()
        if last["val"].get(key) is not None
    )
    yield f"<h2>Val split</h2><p>Iteration {last['iteration']}: {escape(said)}</p>"
    if len(found.evaluations) > 1:
        yield f'<div class="charts">{chart("AP, percent", curves)}</div>'


def _samples(found: RunSummary) -> Iterable[str]:
    pictures = kept(found.folder)
    if not pictures:
        return
    yield "<h2>Masks of training boxes, step by step</h2>"
    for name, steps in pictures.items():
        shown = _thinned(steps, STEPS_SHOWN)
        figures = "".join(
            _figure(path.read_bytes(), f"step {step}", f"image {name} after {step} steps")
            for step, path in shown
        )
        yield f'<p class="soft">image {escape(name)}</p><div class="row">{figures}</div>'


def _looked(looked: Sequence[Looked]) -> Iterable[str]:
    if not looked:
        return
    worst = sorted(looked, key=lambda one: one.quality)[:WORST]
    yield (
        f"<h2>Worst images</h2><p class='soft'>of {counted(len(looked), 'training image')}, by "
        "the mean expected quality (IoU) of the masks of their boxes</p>"
    )
    figures = (
        _figure(
            one.picture,
            f"{one.name}: {one.quality:.2f}, {counted(one.boxes, 'box', 'es')}",
            f"masks on {one.name}",
        )
        for one in worst
    )
    yield f'<div class="grid">{"".join(figures)}</div>'
    slowest = sorted(looked, key=lambda one: -one.seconds)[:WORST]
    rows = "".join(
        f"<tr><td>{escape(one.name)}</td><td>{1000 * one.load_seconds:.0f}</td>"
        f"<td>{1000 * (one.seconds - one.load_seconds):.0f}</td><td>{one.width} x {one.height}"
        f"</td><td>{one.boxes}</td></tr>"
        for one in slowest
    )
    yield (
        "<h2>Slowest images</h2><p class='soft'>milliseconds to load, and for the network and "
        "the masks, on the machine that wrote this page</p><div class='wide'><table><tr><th>image"
        "</th><th>load</th><th>predict</th><th>pixels</th><th>boxes</th></tr>"
        f"{rows}</table></div>"
    )


def _figure(jpeg: bytes, caption: str, alt: str) -> str:
    data = base64.b64encode(jpeg).decode("ascii")
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'
        f'<figcaption class="small">{escape(caption)}</figcaption></figure>'
    )


def chart(title: str, curves: Sequence[Curve]) -> str:
    """Lines over iterations with a legend that says where each stands now; "" without a point."""
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    low, high = min(0.0, *ys), max(ys)
    first, last = min(xs), max(xs)
    high = high if high > low else low + 1.0
    last = last if last > first else first + 1.0

    def at(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - 8) * (x - first) / (last - first)
        down = 8 + (HEIGHT - BOTTOM - 8) * (high - y) / (high - low)
        return f"{across:.1f},{down:.1f}"

    lines = "".join(_line(curve, color, at) for curve, color in zip(curves, _cycle(), strict=False))
    ground = HEIGHT - BOTTOM
    axes = (
        f'<path d="M{LEFT},8V{ground}H{WIDTH - 8}" fill="none" stroke="var(--line)"/>'
        f'<text x="{LEFT - 6}" y="18" text-anchor="end">{_short(high)}</text>'
        f'<text x="{LEFT - 6}" y="{ground}" text-anchor="end">{_short(low)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{first:.0f}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">{last:.0f}</text>'
    )
    legend = "".join(
        f'<span><i style="background:{color}"></i>{escape(curve.name)} '
        f"{_short(curve.points[-1][1])}</span>"
        for curve, color in zip(curves, _cycle(), strict=False)
    )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">{axes}{lines}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )


def _line(curve: Curve, color: str, at: Any) -> str:
    points = _thinned(list(curve.points), POINTS)
    if len(points) == 1:
        x, y = at(*points[0]).split(",")
        return f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>'
    path = "L".join(at(x, y) for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.8"/>'


def _cycle() -> Iterable[str]:
    while True:
        yield from COLORS


def _thinned(values: Sequence[Any], most: int) -> list[Any]:
    """Evenly spread ones, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    step = (len(values) - 1) / (most - 1)
    return [values[round(k * step)] for k in range(most)]


def _short(value: float) -> str:
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


def _course(found: RunSummary, *path: str) -> list[tuple[float, float]]:
    """A number in every report that has it, over iterations."""
    points = []
    for row in found.reports:
        value: Any = row
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and math.isfinite(value):
            points.append((float(row["iteration"]), float(value)))
    return points
