"""Shapes in annotations: jaxtyping's where something has loaded it, as the tests do to check them.

Elsewhere people and type checkers read them, and loading it would take a third of the time that
a command needs to start.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float32, Float64, Int64, UInt8
else:

    class _Array:
        def __class_getitem__(cls, array_and_shape: tuple[type, str]) -> type:
            return array_and_shape[0]

    Bool = Float32 = Float64 = Int64 = UInt8 = _Array

__all__ = ["Bool", "Float32", "Float64", "Int64", "UInt8"]
