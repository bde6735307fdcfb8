"""What a tensor is called elsewhere, and here."""

import re
from collections.abc import Callable, Iterable

ADELAIDET_HEADS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"backbone\.fpn_lateral([345])\.", lambda m: f"fpn.lateral.{int(m[1]) - 3}."),
    (r"backbone\.fpn_output([345])\.", lambda m: f"fpn.output.{int(m[1]) - 3}."),
    (r"backbone\.top_block\.(p[67])\.", lambda m: f"fpn.{m[1]}."),
    (r"proposal_generator\.fcos_head\.cls_tower\.", lambda m: "head.class_tower."),
    (r"proposal_generator\.fcos_head\.bbox_tower\.", lambda m: "head.box_tower."),
    (r"proposal_generator\.fcos_head\.cls_logits\.", lambda m: "head.class_logits."),
    (r"proposal_generator\.fcos_head\.bbox_pred\.", lambda m: "head.ltrb."),
    (r"proposal_generator\.fcos_head\.ctrness\.", lambda m: "head.quality."),
    (r"proposal_generator\.fcos_head\.scales\.(\d)\.scale", lambda m: f"head.scales.{m[1]}"),
    (r"controller\.", lambda m: "controller."),
    (r"mask_branch\.refine\.", lambda m: "mask_branch.refine."),
    (r"mask_branch\.seg_head\.", lambda m: "semantic_head.tower."),
    (r"mask_branch\.logits\.", lambda m: "semantic_head.output."),
)
"""AdelaiDet's prefixes and ours; the mask branch's tower and the backbone need more than that."""


def from_adelaidet(name: str, *, mask_convs: int) -> str | None:
    """Our name of a tensor of an AdelaiDet checkpoint; None: nothing of ours.

    Scales come one by one; ``head.scales.3`` is the fourth number of ``head.scales``.

    Args:
        mask_convs: 3x3 convolutions of the mask branch's tower; the layer after them is its output.
    """
    if name.startswith("backbone.bottom_up."):
        inner = from_detectron2(name.removeprefix("backbone.bottom_up."))
        return None if inner is None else f"backbone.net.{inner}"
    if match := re.match(r"mask_branch\.tower\.(\d+)\.(.*)", name):
        layer, rest = int(match[1]), match[2]
        return (
            f"mask_branch.output.{rest}"
            if layer == mask_convs
            else f"mask_branch.tower.{layer}.{rest}"
        )
    for pattern, ours in ADELAIDET_HEADS:
        if match := re.match(pattern, name):
            return ours(match) + name[match.end() :]
    return None


def from_detectron2(name: str) -> str | None:
    """timm's name of a tensor of detectron2's ResNet; None: not of a ResNet."""
    name = name.removeprefix("backbone.bottom_up.")
    if match := re.fullmatch(r"stem\.conv1\.(norm\.)?(\w+)", name):
        return f"bn1.{match[2]}" if match[1] else f"conv1.{match[2]}"
    match = re.fullmatch(
        r"res([2-5])\.(\d+)\.(conv[123]|shortcut|conv2_offset)\.(norm\.)?(\w+)", name
    )
    if match is None:
        return _from_caffe2(name)
    stage, block, part, norm, leaf = match.groups()
    return f"layer{int(stage) - 1}.{block}.{_part(part, bool(norm))}.{leaf}"


def _part(part: str, norm: bool) -> str:
    if part == "shortcut":
        return "downsample.1" if norm else "downsample.0"
    if part == "conv2_offset":
        return "conv2.offset"
    return part.replace("conv", "bn") if norm else part


def _from_caffe2(name: str) -> str | None:
    """MSRA's blobs: res3_0_branch2a_w, res3_0_branch2a_bn_s..., conv1_w, res_conv1_bn_b."""
    leaves = {"w": "weight", "s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
    if match := re.fullmatch(r"(?:res_)?conv1_(bn_)?(w|s|b|rm|riv)", name):
        return f"{'bn1' if match[1] else 'conv1'}.{leaves[match[2]]}"
    match = re.fullmatch(r"res([2-5])_(\d+)_branch(1|2a|2b|2c)_(bn_)?(w|s|b|rm|riv)", name)
    if match is None:
        return None
    stage, block, branch, norm, leaf = match.groups()
    part = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}[branch]
    return f"layer{int(stage) - 1}.{block}.{_part(part, bool(norm))}.{leaves[leaf]}"


def from_timm(name: str, children: Iterable[str]) -> str:
    """Name in timm's flattened feature extractor: ``layers.0.x`` may have become ``layers_0.x``."""
    for child in children:
        dotted = child.replace("_", ".")
        if dotted != child and name.startswith(dotted + "."):
            return child + name[len(dotted) :]
    return name
