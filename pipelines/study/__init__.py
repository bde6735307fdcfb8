"""Variants of the method, trained alike and judged alike, on drawn scenes and on photographs."""
