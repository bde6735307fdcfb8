"""Exchange: depth made elsewhere into a store, and a store into files that other tools read."""

from boxdepth.depthgen.exchange.depth_import import DepthMeaning, Imported, import_depth
from boxdepth.depthgen.exchange.export import FORMATS, export_store
from boxdepth.depthgen.exchange.hdf5 import import_hdf5, is_exchange_file

__all__ = [
    "FORMATS",
    "DepthMeaning",
    "Imported",
    "export_store",
    "import_depth",
    "import_hdf5",
    "is_exchange_file",
]
