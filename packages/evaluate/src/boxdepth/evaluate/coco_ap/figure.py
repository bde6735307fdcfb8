"""Precision over recall as a matplotlib figure; needs the extra `figures`."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from boxdepth.evaluate.coco_ap.protocol import RECALL_LEVELS, CocoSummary, mean_precision

_NAMES = {"segm": "masks", "bbox": "boxes", "boundary": "boundaries"}


def precision_recall_figure(summaries: Mapping[str, CocoSummary]) -> Figure:
    """One panel a shape; drawn without pyplot, so that no window and no global state is made."""
    figure = Figure(figsize=(4.2 * max(1, len(summaries)), 3.8), layout="constrained")
    for place, (shape, summary) in enumerate(summaries.items(), start=1):
        axes = figure.add_subplot(1, len(summaries), place)
        for label, precision in mean_precision(summary).items():
            axes.plot(RECALL_LEVELS, precision, label=label)
        ap = "undefined" if summary.ap is None else f"{100 * summary.ap:.1f}"
        axes.set(title=f"{_NAMES[shape]}: AP {ap}", xlabel="recall", ylabel="precision",
                 xlim=(0, 1), ylim=(0, 1.02))  # fmt: skip
        if summary.ap is not None:
            axes.legend(loc="lower left", frameon=False)
    return figure
