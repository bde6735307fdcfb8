"""Official Cityscapes instance AP: eight classes, groups and ignore regions, no extra packages."""

from pathlib import Path

from boxdepth.evaluate.cityscapes_ap.convert import cityscapes_to_coco
from boxdepth.evaluate.cityscapes_ap.detections import from_coco, from_folder
from boxdepth.evaluate.cityscapes_ap.scoring import CityscapesReport, evaluate_frames
from boxdepth.evaluate.results import GroundTruth, Predictions, read_annotations, read_predictions


def evaluate_cityscapes(
    predictions: Path, gt_fine: Path, *, annotations: Path | None = None
) -> CityscapesReport:
    """Official AP of a results folder (txt + PNG) or of COCO-style results.

    Args:
        predictions: the folder, or a COCO results file.
        gt_fine: folder of one split, such as `gtFine/val`.
        annotations: for a results file, the COCO annotations that say what its ids mean.

    Raises:
        DataError: names every fault found.
    """
    if predictions.is_dir():
        return evaluate_frames(gt_fine, from_folder(predictions))
    if annotations is None:
        raise ValueError("a COCO results file needs the annotations its ids refer to")
    truth = read_annotations(annotations, with_masks=False)
    return evaluate_cityscapes_tables(truth, read_predictions(predictions, truth), gt_fine)


def evaluate_cityscapes_tables(
    truth: GroundTruth, predictions: Predictions, gt_fine: Path
) -> CityscapesReport:
    """`evaluate_cityscapes` for COCO-style files that are read already."""
    return evaluate_frames(gt_fine, from_coco(truth, predictions))


__all__ = [
    "CityscapesReport",
    "cityscapes_to_coco",
    "evaluate_cityscapes",
    "evaluate_cityscapes_tables",
]
