"""Scenes drawn by us: images, boxes, exact masks and exact depth for everyone."""

from boxdepth.depthgen.datasets.sample.render import Scene, render_scene
from boxdepth.depthgen.datasets.sample.shapes import CLASSES, ShapeClass
from boxdepth.depthgen.datasets.sample.write import SampleReport, scene_seed, write_sample

__all__ = [
    "CLASSES",
    "SampleReport",
    "Scene",
    "ShapeClass",
    "render_scene",
    "scene_seed",
    "write_sample",
]
