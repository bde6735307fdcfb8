"""A table of the paper with our numbers beside it, as Markdown and as a page."""

from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from paper.tables import Line, PaperTable

HEADER = (
    *("method", "backbone", "schedule", "AP", "AP50", "AP75"),
    *("paper AP", "paper AP50", "paper AP75", "remark"),
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ caption }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; color: #222; }
table { border-collapse: collapse; } caption { text-align: left; padding-bottom: .6rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; }
td:nth-child(n+4):nth-child(-n+9) { text-align: right; font-variant-numeric: tabular-nums; }
td:nth-child(n+4):nth-child(-n+6) { font-weight: 600; }
</style></head><body><table><caption>{{ caption }}</caption>
<thead><tr>{% for name in header %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in cells %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></body></html>
"""


def cells_of(
    table: PaperTable, ours: Callable[[str], Mapping[str, Any] | None]
) -> list[tuple[str, ...]]:
    """The text of every cell.

    Args:
        ours: the result of one of our runs by its row's name; None where it wasn't run.  On
            Cityscapes its official AP counts.
    """
    return [_cells(line, ours(line.row) if line.row else None) for line in table.lines]


def _cells(line: Line, result: Mapping[str, Any] | None) -> tuple[str, ...]:
    official = _official(result) if result else {}
    values = [official.get(key) for key in ("ap", "ap50", "ap75")]
    remarks = [] if line.row else ["quoted"]
    if any(value is not None for value in line.paper):
        remarks.append(line.source)
    remarks += [line.remark] if line.remark else []
    if result and "student" in result:
        remarks.append(f"our student {_percent(_official(result['student'])['ap'])}")
    if result and result.get("set"):
        remarks.append(f"ours with {', '.join(result['set'])}")
    return (
        line.title,
        line.backbone,
        line.schedule,
        *(_percent(value) for value in values),
        *("" if value is None else f"{value:.1f}" for value in line.paper),
        "; ".join(remarks),
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _official(result: Mapping[str, Any]) -> Mapping[str, float | None]:
    scores: Mapping[str, float | None] = result.get("cityscapes", result)["segm"]
    return scores


def as_markdown(caption: str, cells: list[tuple[str, ...]]) -> str:
    """A pipe table."""
    rule = tuple("---:" if "AP" in name else "---" for name in HEADER)
    lines = ["| " + " | ".join(line) + " |" for line in (HEADER, rule, *cells)]
    return f"{caption}\n\n" + "\n".join(lines) + "\n"


def as_html(caption: str, cells: list[tuple[str, ...]]) -> str:
    """One page that opens offline."""
    template = jinja2.Environment(autoescape=True).from_string(PAGE)
    return template.render(caption=caption, header=HEADER, cells=cells) + "\n"
