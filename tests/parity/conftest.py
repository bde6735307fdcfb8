"""The recorded reference numbers, a model with the recorded weights, and a count of comparisons."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from boxdepth.trainer.geometry.boxes import raster_centers
from boxdepth.trainer.model.backbone import build_backbone
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.controller import make_controller
from boxdepth.trainer.model.dynamic_mask_head import MaskHeadSpec
from boxdepth.trainer.model.fcos_head import FcosHead
from boxdepth.trainer.model.folded import FoldedConv
from boxdepth.trainer.model.fpn import FeaturePyramid
from boxdepth.trainer.model.mask_branch import MaskBranch, SemanticHead
from boxdepth.trainer.model.weight_names import from_adelaidet
from boxdepth.trainer.model.weights import load_adelaidet

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
MEAN_RGB = (123.675, 116.28, 103.53)
CLASSES = 5
MASK_CONVS = 4


class Compare:
    """Holds our numbers to the recorded ones and remembers how many arrays it has seen."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def close(self, ours: Any, recorded: Any, tolerance: float = 2e-5, *, what: str = "") -> None:
        """Equal within ``tolerance`` of the array's largest magnitude; integers exactly."""
        ours, recorded = _array(ours), _array(recorded)
        self._node.user_properties.append(("compared", what))
        assert ours.shape == recorded.shape, f"{what}: {ours.shape}, recorded {recorded.shape}"
        if recorded.dtype.kind in "iub":
            np.testing.assert_array_equal(ours.astype(np.int64), recorded, err_msg=what)
            return
        error = np.abs(ours.astype(np.float64) - recorded.astype(np.float64)).max(initial=0)
        largest = np.abs(recorded).max(initial=0)
        assert error <= tolerance * largest, f"{what}: off by {error:.3g} of {largest:.3g}"

    def masks(self, ours: np.ndarray, recorded: np.ndarray, *, what: str = "") -> None:
        """Binary masks that differ in at most 1e-4 of their pixels."""
        self._node.user_properties.append(("compared", what))
        assert ours.shape == recorded.shape, what
        assert (ours != recorded).mean() <= 1e-4, f"{what}: {(ours != recorded).sum()} pixels"


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Compare:
    return Compare(request.node)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = terminalreporter.stats.get("passed", [])
    compared = sum(
        name == "compared"
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, _ in report.user_properties
    )
    if compared:
        terminalreporter.write_line(f"parity: {compared} arrays equal the recorded reference")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The committed copy of the recorded numbers: parity needs no shared folder."""
    return GOLDEN


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], dict[str, np.ndarray]]:
    """All arrays of one recorded file."""
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz"))


@pytest.fixture(scope="session")
def recipe() -> ModuleType:
    """The module that makes weights and inputs from names."""
    spec = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_recipe"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def random_like(recipe: ModuleType) -> Callable[[str, Tensor], Tensor]:
    """The recorded standard normal numbers of a name, in a tensor's shape."""
    return lambda name, like: torch.from_numpy(
        recipe.seeded(name).standard_normal(size=tuple(like.shape)).astype(np.float32)
    )


@pytest.fixture(scope="session")
def tiny_weights() -> dict[str, dict[str, Tensor]]:
    """State dicts of the recorded tiny models, by AdelaiDet's names."""
    boxinst = load_file(GOLDEN / "tiny_boxinst.safetensors")
    return {
        "boxinst": boxinst,
        "condinst": boxinst | load_file(GOLDEN / "tiny_condinst_delta.safetensors"),
    }


@pytest.fixture
def tiny_model(tiny_weights: dict[str, dict[str, Tensor]]) -> Callable[..., CondInst]:
    """ResNet-50 at an eighth of its width with the recorded weights, in training mode."""

    def make(kind: str = "boxinst", extra_weights: Mapping[str, Tensor] | None = None) -> CondInst:
        backbone = build_backbone(
            name="resnet50",
            frozen_stages=2,
            frozen_norm=True,
            stride_in_1x1=True,
            extra={"channels": (8, 16, 32, 64)},
        )
        _narrow_stem(backbone.net)
        backbone.freeze([backbone.net.conv1, backbone.net.bn1, *backbone.net.layer1.modules()])
        features = 16 if kind == "boxinst" else 8
        spec = MaskHeadSpec(features=features, depth="off")
        model = CondInst(
            backbone=backbone,
            fpn=FeaturePyramid(backbone.channels, channels=64),
            head=FcosHead(channels=64, num_classes=CLASSES),
            controller=make_controller(64, spec),
            mask_branch=MaskBranch(in_channels=64, channels=16, out_channels=features),
            mask_head=spec,
            semantic_head=(
                SemanticHead(in_channels=64, channels=16, num_classes=CLASSES)
                if extra_weights
                else None
            ),
            pixel_mean=MEAN_RGB,
            pixel_std=(1.0, 1.0, 1.0),
            bgr=True,
        )
        weights = tiny_weights[kind] | dict(extra_weights or {})
        report = load_adelaidet(model, weights, source=kind)
        assert set(report.not_used) == {"mask_head._iter", "mask_head.sizes_of_interest"}
        assert not report.started_anew
        return model.train()

    return make


def _narrow_stem(net: nn.Module) -> None:
    """timm can't narrow a ResNet's 64 stem channels; the recorded tiny model has 8."""
    net.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False).requires_grad_(False)
    net.bn1 = nn.BatchNorm2d(8).requires_grad_(False).eval()
    first = net.layer1[0]  # type: ignore[index]
    first.conv1 = FoldedConv.in_place_of(nn.Conv2d(8, 8, 1, bias=False), first.bn1)
    shortcut = first.downsample
    shortcut[0] = FoldedConv.in_place_of(nn.Conv2d(8, 32, 1, bias=False), shortcut[1])


@pytest.fixture(scope="session")
def gradient_of() -> Callable[[CondInst, str], Tensor]:
    """Gradient of the parameter that AdelaiDet calls by a name."""

    def find(model: CondInst, name: str) -> Tensor:
        return _parameter(model, name, "grad")

    return find


@pytest.fixture(scope="session")
def value_of() -> Callable[[CondInst, str], Tensor]:
    """Parameter or buffer that AdelaiDet calls by a name."""
    return lambda model, name: _parameter(model, name, "data")


def _parameter(model: CondInst, name: str, attribute: str) -> Tensor:
    ours = from_adelaidet(name, mask_convs=MASK_CONVS)
    assert ours is not None, name
    if ours.startswith("head.scales."):
        level = int(ours.rsplit(".", 1)[1])
        return getattr(model.head.scales, attribute)[level : level + 1]
    everything = dict(model.named_parameters()) | dict(model.named_buffers())
    value: Tensor = getattr(everything[ours], attribute)
    return value


@pytest.fixture(scope="session")
def rgb_batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """Recorded BGR images as one padded RGB batch, and their sizes."""

    def make(*images: np.ndarray) -> tuple[Tensor, Tensor]:
        sizes = torch.tensor([image.shape[:2] for image in images])
        height, width = (-(-int(side) // 32) * 32 for side in sizes.amax(dim=0))
        batch = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
        for row, image in zip(batch, images, strict=True):
            rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)
            row[:, : image.shape[0], : image.shape[1]] = rgb
        return batch, sizes

    return make


def centers_within(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """`raster_centers` as the reference has them, whose bitmaps end at the padded input."""
    inside = boxes_xyxy.clone()
    inside[:, 2] = inside[:, 2].clamp(max=size[1] - 1)
    inside[:, 3] = inside[:, 3].clamp(max=size[0] - 1)
    return torch.from_numpy(raster_centers(inside.numpy()))
