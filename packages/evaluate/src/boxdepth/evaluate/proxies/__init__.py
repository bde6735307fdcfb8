"""Quality of masks without mask annotations: proxies, and called so."""

from boxdepth.evaluate.proxies.measure import Proxies, ProxyReport, measure_proxies

__all__ = ["Proxies", "ProxyReport", "measure_proxies"]
