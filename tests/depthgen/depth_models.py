"""Every kind of depth model that transformers has, tiny and with random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

_NECK: dict[str, Any] = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}


def _dinov2(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "mlp_ratio": 2,
        "image_size": 70, "patch_size": 14, "out_indices": [1, 2, 3, 4],
        "apply_layernorm": True, "reshape_hidden_states": False,
    }  # fmt: skip
    return hf.Dinov2Config(**(settings | changes))


def _beit() -> Any:
    return hf.BeitConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=16, out_indices=[1, 2, 3, 4], reshape_hidden_states=False,
        use_relative_position_bias=True,
    )  # fmt: skip


def _depth_anything(**changes: Any) -> Any:
    config = hf.DepthAnythingConfig(
        backbone_config=_dinov2(), reassemble_hidden_size=16, patch_size=14, head_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5], **_NECK, **changes,
    )  # fmt: skip
    return hf.DepthAnythingForDepthEstimation(config)


def _depth_anything_metric() -> Any:
    return _depth_anything(depth_estimation_type="metric", max_depth=20)


def _dpt(**changes: Any) -> Any:
    config = hf.DPTConfig(is_hybrid=False, hidden_size=16, **_NECK, **changes)
    return hf.DPTForDepthEstimation(config)


def _dpt_vit() -> Any:
    return _dpt(
        num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32,
        patch_size=16, backbone_out_indices=[0, 1, 2, 3],
    )  # fmt: skip


def _dpt_dinov2() -> Any:
    return _dpt(backbone_config=_dinov2(), reassemble_factors=[4, 2, 1, 0.5])


def _dpt_beit() -> Any:
    return _dpt(backbone_config=_beit())


def _dpt_swinv2() -> Any:
    backbone = hf.Swinv2Config(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=4, image_size=64,
        patch_size=4, out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = hf.DPTConfig(
        backbone_config=backbone, is_hybrid=False, neck_hidden_sizes=[8, 16, 32, 64],
        fusion_hidden_size=8, hidden_size=8, backbone_featmap_shape=None, neck_ignore_stages=[],
    )  # fmt: skip
    return hf.DPTForDepthEstimation(config)


def _zoedepth() -> Any:
    bins = [{"name": "nyu", "n_bins": 8, "min_depth": 1e-3, "max_depth": 10.0}]
    config = hf.ZoeDepthConfig(
        backbone_config=_beit(), bottleneck_features=8, num_relative_features=8,
        bin_embedding_dim=8, num_attractors=[4, 2, 2, 1], bin_configurations=bins, **_NECK,
    )  # fmt: skip
    return hf.ZoeDepthForDepthEstimation(config)


def _glpn() -> Any:
    config = hf.GLPNConfig(
        num_encoder_blocks=4, depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=8,
        num_attention_heads=[1, 1, 2, 2],
    )  # fmt: skip
    return hf.GLPNForDepthEstimation(config)


def _depth_pro() -> Any:
    encoder = {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4,
        "num_attention_heads": 2, "mlp_ratio": 2, "image_size": 16, "patch_size": 4,
    }  # fmt: skip
    config = hf.DepthProConfig(
        fusion_hidden_size=8, patch_size=16, intermediate_hook_ids=[2, 1],
        intermediate_feature_dims=[8, 8], scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.2], scaled_images_feature_dims=[8, 8],
        image_model_config=encoder, patch_model_config=encoder, fov_model_config=encoder,
        use_fov_model=False,
    )  # fmt: skip
    return hf.DepthProForDepthEstimation(config)


_OFF = {"do_resize": False, "do_rescale": False, "do_pad": True, "size_divisor": 14}
_IMAGENET = {"image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]}
_KEPT = {"size": {"height": 70, "width": 70}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
KINDS: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "dpt-vit": (_dpt_vit, "DPT", {"size": {"height": 32, "width": 32}}),
    "dpt-beit": (
        _dpt_beit, "DPT",
        {"size": {"height": 64, "width": 64}, "keep_aspect_ratio": True, "ensure_multiple_of": 32},
    ),
    "dpt-swinv2": (_dpt_swinv2, "DPT", {"size": {"height": 64, "width": 64}}),
    "dpt-dinov2": (_dpt_dinov2, "DPT", _OFF | _IMAGENET),
    "depth-anything": (_depth_anything, "DPT", _KEPT),
    "depth-anything-metric": (_depth_anything_metric, "DPT", _KEPT),
    "zoedepth": (
        _zoedepth, "ZoeDepth", {"size": {"height": 64, "width": 96}, "ensure_multiple_of": 32},
    ),
    "glpn": (_glpn, "GLPN", {}),
    "depth-pro": (_depth_pro, "DepthPro", {"size": {"height": 64, "width": 64}}),
}  # fmt: skip
"""Model, processor class, and what its settings differ in from the class's own."""


def save_model(kind: str, folder: Path, **changes: Any) -> Path:
    """Write a model of this kind as ``save_pretrained`` of its own classes does.

    The weights are drawn so that its depth has some texture.

    Args:
        changes: Settings of the processor that differ from the kind's.
    """
    build, processor, settings = KINDS[kind]
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1 and "norm" not in name:
                fan_in = weights[0].numel()
                weights.normal_(std=1.2 * fan_in**-0.5)
    model.save_pretrained(folder)
    processor_class = getattr(hf, f"{processor}ImageProcessor")
    processor_class(**settings).save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def pipeline_depth(folder: Path, image: Any) -> Any:
    """What transformers' own processor and model make of a picture, over the picture's area.

    [h w]; as the pipeline computes it, but for zeros around a DPT's input, which it leaves in.
    """
    processor = hf.AutoImageProcessor.from_pretrained(folder)
    model = hf.AutoModelForDepthEstimation.from_pretrained(folder).eval()
    pixels = processor(images=image, return_tensors="pt")["pixel_values"].float()
    size = image.size[::-1]
    with torch.no_grad():
        outputs = model(pixel_values=pixels)
    if type(processor).__name__.startswith("ZoeDepth"):
        return processor.post_process_depth_estimation(outputs, [size])[0]["predicted_depth"]
    depth = outputs.predicted_depth[0]
    if getattr(processor, "do_pad", False) and type(processor).__name__.startswith("DPT"):
        rows, columns = pixels.shape[-2:]
        depth = torch.nn.functional.interpolate(depth[None, None], (rows, columns))[0, 0]
        top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
        depth = depth[top : top + size[0], left : left + size[1]]
    return depth
