"""Masks in the format of the next tool, each read back and compared."""

from boxdepth.evaluate.export.converting import convert
from boxdepth.evaluate.export.exporting import ExportReport, Form, Options, Target, export_masks
from boxdepth.evaluate.export.shapes import Policy
from boxdepth.evaluate.export.source import ExportSet, read_source

__all__ = [
    "ExportReport",
    "ExportSet",
    "Form",
    "Options",
    "Policy",
    "Target",
    "convert",
    "export_masks",
    "read_source",
]
