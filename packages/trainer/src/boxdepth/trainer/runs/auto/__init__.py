"""`trainer fit auto`: from what a dataset is to how it is trained, and why so."""

from boxdepth.trainer.runs.auto.backbones import BackboneChoice, choose_backbone
from boxdepth.trainer.runs.auto.facts import Facts, duplicate_images, read_facts
from boxdepth.trainer.runs.auto.findings import Finding, find_problems, unseen_boxes
from boxdepth.trainer.runs.auto.picker import Choice, Machine, Reason, pick

__all__ = [
    "BackboneChoice",
    "Choice",
    "Facts",
    "Finding",
    "Machine",
    "Reason",
    "choose_backbone",
    "duplicate_images",
    "find_problems",
    "pick",
    "read_facts",
    "unseen_boxes",
]
