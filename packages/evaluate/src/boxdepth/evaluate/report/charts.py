"""Charts as inline SVG, drawn at the width of a phone so that their text is never too small."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 250
UNIT = ("0", "0.25", "0.5", "0.75", "1")
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 38


def line_chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float], str]], *, x: str, y: str
) -> Markup:
    """Lines over [0, 1] x [0, 1]: name to (xs, ys, colour), with a legend below the chart."""
    paths = []
    for xs, ys, colour in lines.values():
        points = " ".join(
            f"{_across(a):.1f},{_up(b, 1.0):.1f}" for a, b in zip(xs, ys, strict=True)
        )
        paths.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    body = axes(x=x, y=y, top=1.0, ticks=UNIT) + "".join(paths)
    return _svg(body, title=f"{y} over {x}") + legend({n: c for n, (_, _, c) in lines.items()})


def stacked_histogram(
    layers: Mapping[str, tuple[Sequence[int], str]], *, edges: Sequence[float], x: str, y: str
) -> Markup:
    """Bars of equal width between `edges`, layers stacked: name to (counts, colour)."""
    totals = [sum(counts) for counts in zip(*(c for c, _ in layers.values()), strict=True)]
    top = 4 * -(-max([*totals, 1]) // 4)  # four ticks at whole numbers
    width = (WIDTH - _LEFT - _RIGHT) / max(len(totals), 1)
    bars, below = [], [0] * len(totals)
    for counts, colour in layers.values():
        for place, count in enumerate(counts):
            low, high = _up(below[place], top), _up(below[place] + count, top)
            left = _LEFT + place * width
            bars.append(
                f'<rect x="{left + 0.5:.1f}" y="{high:.1f}" width="{max(width - 1, 1):.1f}" '
                f'height="{max(low - high, 0):.1f}" fill="{colour}"/>'
            )
            below[place] += count
    labels = [f"{edges[0] + (edges[-1] - edges[0]) * k / 4:.2g}" for k in range(5)]
    body = axes(x=x, y=y, top=float(top), ticks=tuple(labels)) + "".join(bars)
    return _svg(body, title=f"{y} by {x}") + legend({n: c for n, (_, c) in layers.items()})


def legend(colours: Mapping[str, str]) -> Markup:
    """Names beside their colours, as HTML that wraps."""
    items = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in colours.items()
    )
    return Markup(f'<div class="legend">{items}</div>')


def _svg(body: str, *, title: str) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
    )


def frame(top: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the drawing area, in the units of the picture."""
    return _LEFT, _up(top, top), WIDTH - _RIGHT, _up(0.0, top)


def axes(*, x: str, y: str, top: float, ticks: tuple[str, ...]) -> str:
    """Grid lines with their values up the side, `ticks` and the name of x below."""
    parts = []
    for place, label in enumerate(ticks):
        share = place / (len(ticks) - 1)
        across, up = _across(share), _up(share * top, top)
        value = share * top
        mark = f"{value:.2g}" if top <= 1 else f"{value:,.0f}"
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>'
            f'<text x="{across:.1f}" y="{HEIGHT - _BOTTOM + 16}" '
            f'text-anchor="middle">{label}</text>'
            f'<text x="{_LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{mark}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x)}</text>')
    return "".join(parts)


def _across(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _up(value: float, top: float) -> float:
    return HEIGHT - _BOTTOM - value / top * (HEIGHT - _TOP - _BOTTOM)
