"""What tiles can be told, in training and in prediction alike."""

from typing import TYPE_CHECKING

from pydantic import model_validator

from boxdepth.trainer.config.settings import NonNegative, Positive, Settings

if TYPE_CHECKING:
    from boxdepth.trainer.geometry.tiles import Tiling


class Tiles(Settings):
    """Large images are looked at in square tiles that overlap."""

    tile: Positive | None = None
    """Side of the tiles in pixels of the image, each resized as an image is; None: an image is
    looked at as a whole."""
    overlap: NonNegative = 128
    """Pixels of the image that neighbouring tiles share: objects up to it are whole in one."""

    @model_validator(mode="after")
    def _tiles_advance(self) -> "Tiles":
        if self.tile is not None and not self.overlap < self.tile / 2:
            raise ValueError(
                f"an overlap of {self.overlap} pixels for tiles of {self.tile}: expected less than "
                "half a tile"
            )
        return self

    @property
    def tiling(self) -> "Tiling | None":
        """Where the tiles of an image lie; None: it is seen as a whole."""
        from boxdepth.trainer.geometry.tiles import Tiling

        return None if self.tile is None else Tiling(size=self.tile, overlap=self.overlap)
