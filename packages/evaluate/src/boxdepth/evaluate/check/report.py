"""What `check` found, as values, JSON, a table and a figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boxdepth.evaluate.results.tables import markdown, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A mistake, and the AP after its cure and those before it.

    Attributes:
        problem: what is wrong, in words.
        advice: how to mend it for good.
        ap_after: AP by shape ("segm", "bbox") once it and the findings before it are mended.
        is_mended: the readers of this package mend it by themselves, so AP does not change here;
            other tools may not.
    """

    problem: str
    advice: str
    ap_after: Mapping[str, float]
    is_mended: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {
            "problem": self.problem,
            "advice": self.advice,
            "ap_after": dict(self.ap_after),
            "mended": self.is_mended,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What `check` found.

    Attributes:
        error: why the files cannot be scored as they are, or None.
        ap: AP of the files as they are, by shape ("segm", "bbox"); empty if they cannot be scored.
        findings: mistakes and cures, to be applied in this order.
        class_agnostic_ap: box AP if all classes were one, after the cures: high beside a low AP
            means that places are right and classes wrong.
        notes: everything else worth knowing, in sentences.
        images: how many images the APs are about.
        version: of boxdepth-evaluate.
    """

    error: str | None
    ap: Mapping[str, float]
    findings: tuple[Finding, ...]
    class_agnostic_ap: float | None
    notes: tuple[str, ...]
    images: int
    version: str

    @property
    def is_sound(self) -> bool:
        """Whether the files can be scored and no cure would raise the AP."""
        return self.error is None and all(finding.is_mended for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As `evaluate check --json` prints it."""
        return {
            "sound": self.is_sound,
            "error": self.error,
            "ap": dict(self.ap),
            "findings": [finding.to_json() for finding in self.findings],
            "class_agnostic_ap": self.class_agnostic_ap,
            "notes": list(self.notes),
            "images": self.images,
            "version": self.version,
        }

    def table(self) -> str:
        """AP as the files are and after each cure, in percent, as a Markdown table."""
        rows = [("as it is", *_aps(self.ap), "")]
        rows += [(f.problem, *_aps(f.ap_after), f.advice) for f in self.findings]
        return markdown(("", "mask AP", "box AP", "cure"), rows)

    def figure(self) -> "Figure":
        """AP as the files are and after each cure.

        Raises:
            ImportError: matplotlib, the extra `figures`, is not installed.
        """
        from matplotlib.figure import Figure

        stages = [self.ap, *(finding.ap_after for finding in self.findings)]
        figure = Figure(figsize=(6, 1.4 + 0.6 * len(stages)), layout="constrained")
        axes = figure.add_subplot()
        for offset, (shape, name) in enumerate({"segm": "masks", "bbox": "boxes"}.items()):
            places = [place + 0.35 * offset - 0.175 for place in range(len(stages))]
            values = [100 * stage.get(shape, 0.0) for stage in stages]
            axes.barh(places, values, height=0.32, label=name)
        labels = ["as it is", *(f"after cure {n}" for n in range(1, len(stages)))]
        axes.set_yticks(range(len(stages)), labels)
        axes.invert_yaxis()
        axes.set(xlabel="AP, percent", xlim=(0, 100))
        axes.legend(loc="lower right", frameon=False)
        return figure


def _aps(values: Mapping[str, float]) -> tuple[str, str]:
    return percent(values.get("segm")), percent(values.get("bbox"))
