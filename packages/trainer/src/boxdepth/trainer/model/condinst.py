"""The whole network (arXiv 2003.05664): parts in, dense outputs out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from boxdepth.trainer.model.controller import ParametersOnDemand
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.model.fcos_head import FcosHead
from boxdepth.trainer.model.feature_cache import FeatureCache
from boxdepth.trainer.model.fpn import FeaturePyramid
from boxdepth.trainer.model.mask_branch import MaskBranch, SemanticHead
from boxdepth.trainer.structures import DenseOutputs

if TYPE_CHECKING:
    from boxdepth.trainer.model.backbone import Backbone


class CondInst(nn.Module):
    """Backbone, FPN, FCOS head, controller and mask branch.

    The dynamic mask head has no weights; ``mask_head`` is its shape, and `mask_outputs` its
    computation.
    """

    def __init__(
        self,
        *,
        backbone: "Backbone",
        fpn: FeaturePyramid,
        head: FcosHead,
        controller: nn.Conv2d,
        mask_branch: MaskBranch,
        mask_head: MaskHeadSpec,
        semantic_head: SemanticHead | None = None,
        pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53),
        pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375),
        bgr: bool = False,
        feature_cache: FeatureCache | None = None,
    ) -> None:
        """Wires the parts.

        Args:
            pixel_mean: RGB, 0..255.
            pixel_std: RGB, 0..255.
            bgr: the backbone expects BGR.
            feature_cache: keeps the features of training images; for a backbone that is frozen.

        Raises:
            ValueError: the controller doesn't predict what the mask head needs.
        """
        super().__init__()
        if controller.out_channels != mask_head.num_params:
            raise ValueError(
                f"the controller predicts {controller.out_channels} numbers, "
                f"the mask head needs {mask_head.num_params}"
            )
        self.backbone = backbone
        self.fpn = fpn
        self.head = head
        self.controller = controller
        self.mask_branch = mask_branch
        self.semantic_head = semantic_head
        self.mask_head = mask_head
        self.bgr = bgr
        self.feature_cache = feature_cache
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std), persistent=False)
        self.pixel_mean: Tensor
        self.pixel_std: Tensor

    @property
    def num_classes(self) -> int:
        """Classes that the head tells apart."""
        return self.head.class_logits.out_channels

    def forward(
        self, images: UInt8[Tensor, "b 3 h w"], sizes: Int64[Tensor, "b 2"]
    ) -> DenseOutputs:
        """Dense outputs of a padded batch.

        Args:
            images: RGB, 0..255; sides are multiples of 32.
            sizes: (height, width) of the unpadded images; normalised pixels beyond are 0.
        """
        if self.feature_cache is None or not self.training:
            return self.from_normalized(self.normalized(images, sizes))
        kept = self.feature_cache.batch(
            images, sizes, lambda i, s: self.backbone(self.normalized(i, s))
        )
        layout = self._memory_format
        return self._from_features([x.contiguous(memory_format=layout) for x in kept])

    def from_normalized(self, images: Float[Tensor, "b 3 h w"]) -> DenseOutputs:
        """Dense outputs of images that are normalised and padded already."""
        return self._from_features(self.backbone(images))

    def _from_features(self, features: Sequence[Tensor]) -> DenseOutputs:
        levels = self.fpn(features)
        head = self.head(levels)
        semantic = (
            self.semantic_head(levels[0])
            if self.semantic_head is not None and self.training
            else None
        )
        return DenseOutputs(
            class_logits=head.class_logits,
            ltrb=head.ltrb,
            quality_logits=head.quality_logits,
            controller=ParametersOnDemand(
                features=head.box_features,
                weight=self.controller.weight,
                bias=self.controller.bias,  # type: ignore[arg-type]
            ),
            mask_features=self.mask_branch(levels),
            semantic_logits=semantic,
        )

    def normalized(
        self, images: UInt8[Tensor, "b 3 h w"], sizes: Int64[Tensor, "b 2"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Minus mean, by std, 0 outside the images, in the backbone's channel order."""
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device) < sizes[:, :1]
        columns = torch.arange(width, device=images.device) < sizes[:, 1:]
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        values = (images.float() - self.pixel_mean[:, None, None]) / self.pixel_std[:, None, None]
        values = torch.where(inside, values, 0.0)
        if self.bgr:
            values = values.flip(1)
        return values.contiguous(memory_format=self._memory_format)

    @property
    def _memory_format(self) -> torch.memory_format:
        weight = self.mask_branch.refine[0][0].weight  # type: ignore[index]
        channels_last = weight.is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if channels_last else torch.contiguous_format
