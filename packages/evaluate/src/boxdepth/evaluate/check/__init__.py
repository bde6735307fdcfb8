"""`check`: why an AP is low or zero, in words."""

from boxdepth.evaluate.check.checking import check
from boxdepth.evaluate.check.report import CheckReport, Finding

__all__ = ["CheckReport", "Finding", "check"]
