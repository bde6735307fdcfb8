"""`evaluate check`: why an AP is low or zero, in words."""

from boxdepth.evaluate.check.checking import CheckReport, Finding, check_results

__all__ = ["CheckReport", "Finding", "check_results"]
