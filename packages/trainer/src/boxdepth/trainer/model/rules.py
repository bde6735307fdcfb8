"""What the network can be told."""

from typing import Annotated, Literal

from pydantic import Field

from boxdepth.trainer.settings import Positive, Settings


class MaskHead(Settings):
    """Layers of the dynamic network."""

    layers: Annotated[int, Field(ge=2)] = 3
    channels: Positive = 8
    relative_coordinates: bool = True
    depth: Literal["off", "product", "sum"] = "product"
    """How the depth layer joins the mask logit (arXiv 2403.01214, Eq. 1)."""
