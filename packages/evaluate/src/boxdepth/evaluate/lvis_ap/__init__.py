"""LVIS federated AP (arXiv:1908.03195): classes are scored only where somebody looked for them."""

from boxdepth.evaluate.lvis_ap.federation import Federation, read_federation
from boxdepth.evaluate.lvis_ap.scoring import LvisNumbers, LvisReport, evaluate_lvis

__all__ = ["Federation", "LvisNumbers", "LvisReport", "evaluate_lvis", "read_federation"]
