"""Boxes, grids, neighbours and resizing: arithmetic that knows nothing of networks."""
