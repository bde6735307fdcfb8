"""Of which kind a loss is."""

from typing import Literal

BoxLoss = Literal["giou", "iou", "linear_iou"]
Reduction = Literal["pixels", "instances"]
