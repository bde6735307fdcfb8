"""`evaluate report`: one HTML file that opens offline."""

from boxdepth.evaluate.report.content import ReportContent, collect
from boxdepth.evaluate.report.matrix import confusion_csv, confusion_svg
from boxdepth.evaluate.report.render import render

__all__ = ["ReportContent", "collect", "confusion_csv", "confusion_svg", "render"]
