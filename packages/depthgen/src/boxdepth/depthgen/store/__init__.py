"""The store: the contract between depthgen, which writes it, and the trainer, which reads it.

Needs numpy, zarr and Pillow only. ``docs/store-format.md`` describes the format for other readers.
"""

from boxdepth.depthgen.store.dataset import StoreDataset, StoreItem
from boxdepth.depthgen.store.errors import (
    ConfigError,
    DataError,
    DepthgenError,
    EnvironmentFailure,
    ImageError,
    MissingExtraError,
    StoreBusyError,
    StoreError,
    StoreMismatchError,
)
from boxdepth.depthgen.store.images import decode_image
from boxdepth.depthgen.store.location import Location, is_remote, locate
from boxdepth.depthgen.store.plan import plan_store
from boxdepth.depthgen.store.read import Boxes, Store, open_store
from boxdepth.depthgen.store.schema import (
    Category,
    DepthInfo,
    ImageRecord,
    StoreAttributes,
)
from boxdepth.depthgen.store.unit import UnitRows
from boxdepth.depthgen.store.verify import Verification, verify_store
from boxdepth.depthgen.store.write import StoreWriter, open_writer, write_store, write_unit

__all__ = [
    "Boxes",
    "Category",
    "ConfigError",
    "DataError",
    "DepthInfo",
    "DepthgenError",
    "EnvironmentFailure",
    "ImageError",
    "ImageRecord",
    "Location",
    "MissingExtraError",
    "Store",
    "StoreAttributes",
    "StoreBusyError",
    "StoreDataset",
    "StoreError",
    "StoreItem",
    "StoreMismatchError",
    "StoreWriter",
    "UnitRows",
    "Verification",
    "decode_image",
    "is_remote",
    "locate",
    "open_store",
    "open_writer",
    "plan_store",
    "verify_store",
    "write_store",
    "write_unit",
]
