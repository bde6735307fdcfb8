"""Weights of other makes: all of them find their place, or the file is refused in clear words."""

import pickle  # noqa: TID251 - writes what must be refused
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model, import_weights
from boxdepth.trainer.model.backbone import Backbone, build_backbone
from boxdepth.trainer.model.weight_files import WeightsError, check_finite, read_tensors
from boxdepth.trainer.model.weight_names import from_adelaidet, from_detectron2, from_timm
from boxdepth.trainer.model.weights import load_adelaidet, load_backbone

NARROW = {"channels": (8, 16, 32, 64)}


def narrow(**options: Any) -> Backbone:
    torch.manual_seed(1)
    return build_backbone(name="resnet50", extra=NARROW, **options)


def timm_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model("resnet50", num_classes=4, **NARROW).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_timm_and_torchvision_resnets_load(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"resnet50{suffix}"
    weights = timm_weights()
    if suffix == ".pth":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    else:
        save_file(weights, path)
    backbone = narrow()
    report = load_backbone(backbone, path)
    assert set(report.not_used) == {"fc.weight", "fc.bias"}
    assert report.not_in_file == ()
    for name, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert "2 not used: fc." in str(report)


def to_detectron2(name: str) -> str:
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    for k in (1, 2, 3):
        name = name.replace(f".bn{k}.", f".conv{k}.norm.").replace(f"layer{k + 1}.", f"res{k + 2}.")
    name = name.replace("layer1.", "res2.")
    return (
        f"stem.conv1.{name.replace('conv1.', '').replace('bn1.', 'norm.')}"
        if name.startswith(("conv1", "bn1"))
        else name
    )


def to_caffe2(name: str) -> str:
    leaf = {"weight": "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    parts = to_detectron2(name).split(".")
    norm = "norm" in parts
    last = "s" if norm and parts[-1] == "weight" else leaf[parts[-1]]
    if parts[0] == "stem":
        return f"res_conv1_bn_{last}" if norm else "conv1_w"
    branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[parts[2]]
    return f"{parts[0]}_{parts[1]}_branch{branch}_{'bn_' if norm else ''}{last}"


@pytest.mark.parametrize("naming", ["detectron2", "caffe2"])
def test_detectron2_pickles_load(tmp_path: Path, naming: str) -> None:
    path = tmp_path / "R-50.pkl"
    rename = to_detectron2 if naming == "detectron2" else to_caffe2
    ours = timm_weights()
    kept = {
        rename(name): tensor.numpy()
        for name, tensor in ours.items()
        if not name.startswith("fc") and not name.endswith("num_batches_tracked")
        if naming == "detectron2" or "running" not in name
    }
    path.write_bytes(pickle.dumps({"model": kept, "__author__": "someone"}, protocol=2))
    backbone = narrow(stride_in_1x1=True)
    report = load_backbone(backbone, path)
    assert report.not_used == ()
    state = backbone.net.state_dict()
    for name, tensor in ours.items():
        if rename is to_caffe2 and name.endswith("running_mean"):
            assert (state[name] == 0).all()
        elif rename is to_caffe2 and name.endswith("running_var"):
            assert torch.allclose(state[name] + 1e-5, torch.ones(1))
        elif not name.startswith("fc") and "num_batches" not in name:
            assert torch.equal(state[name], tensor), name


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pth"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    path, witness = tmp_path / name, tmp_path / "witness"
    content = {"model": {"conv1.weight": np.zeros(3)}, "trap": Trap(witness)}
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=r"plain values \(it asks for \w+") as caught:
        read_tensors(path)
    assert not witness.exists()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["a.safetensors", "a.pkl", "a.pth"])
def test_noise_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(WeightsError, match=f"{name} is damaged"):
        read_tensors(path)


def test_a_missing_file_and_one_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file at .*nowhere"):
        read_tensors(tmp_path / "nowhere.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="holds no tensors, seen: epoch"):
        read_tensors(tmp_path / "empty.pth")


def test_a_backbone_of_another_width_names_the_shapes(tmp_path: Path) -> None:
    save_file(timm_weights(), tmp_path / "narrow.safetensors")
    with pytest.raises(WeightsError, match=r"layer1.0.conv1.weight is \(8, 64, 1, 1\), expected"):
        load_backbone(build_backbone(name="resnet50"), tmp_path / "narrow.safetensors")


def test_weights_of_something_else_name_what_is_missing(tmp_path: Path) -> None:
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"missing: conv1.weight.*called encoder.weight"):
        load_backbone(narrow(), tmp_path / "other.safetensors")


def test_flattened_extractors_keep_their_checkpoint_names() -> None:
    assert from_timm("layers.0.blocks.1.x", ["layers_0"]) == "layers_0.blocks.1.x"
    assert from_timm("layer1.0.conv1.weight", ["layer1"]) == "layer1.0.conv1.weight"


def test_swin_weights_load_into_the_flattened_extractor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}
    name = "swin_tiny_patch4_window7_224"
    weights = timm.create_model(name, **small).state_dict()
    save_file(weights, tmp_path / "swin.safetensors")
    backbone = build_backbone(name=name, extra=small)
    report = load_backbone(backbone, tmp_path / "swin.safetensors")
    assert report.not_in_file == ()
    assert all(n.startswith(("head.", "norm.")) for n in report.not_used), report.not_used


MODEL = config.Model(
    num_classes=3,
    backbone=config.Backbone(frozen_stages=0, frozen_norm=False, extra=NARROW),
    fpn_channels=16,
    fcos=config.FcosHead(convs=4),
    mask_branch=config.MaskBranch(channels=16),
    mask_head=config.MaskHead(depth="off"),
)


def adelaidet_weights(classes: int = 3) -> dict[str, Tensor]:
    """A model of ours under AdelaiDet's names."""
    torch.manual_seed(4)
    model = build_model(MODEL.changed(num_classes=classes))
    back = {"class_tower": "cls_tower", "box_tower": "bbox_tower", "class_logits": "cls_logits"}
    back |= {"ltrb": "bbox_pred", "quality": "ctrness"}
    named: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        part, _, rest = name.partition(".")
        inner, _, leaf = rest.partition(".")
        if part == "backbone":
            if not name.endswith("num_batches_tracked"):
                named[f"backbone.bottom_up.{to_detectron2(inner_name(name))}"] = tensor
        elif part == "fpn" and inner in {"lateral", "output"}:
            number, _, kind = leaf.partition(".")
            named[f"backbone.fpn_{inner}{int(number) + 3}.{kind}"] = tensor
        elif part == "fpn":
            named[f"backbone.top_block.{rest}"] = tensor
        elif name == "head.scales":
            for level, scale in enumerate(tensor):
                named[f"proposal_generator.fcos_head.scales.{level}.scale"] = scale.reshape(1)
        elif part == "head":
            named[f"proposal_generator.fcos_head.{back[inner]}.{leaf}"] = tensor
        elif inner == "output":
            named[f"mask_branch.tower.4.{leaf}"] = tensor
        else:
            named[name] = tensor
    return named


def inner_name(name: str) -> str:
    return name.removeprefix("backbone.net.")


def test_a_whole_model_comes_back_under_our_names(tmp_path: Path) -> None:
    path = tmp_path / "BoxInst.pth"
    torch.save({"model": adelaidet_weights(), "iteration": 90_000}, path)
    imported = import_weights(path, MODEL.changed(num_classes=0))
    torch.manual_seed(4)
    expected = build_model(MODEL).state_dict()
    assert imported.kind == "model"
    assert imported.report.not_used == ()
    for name, tensor in expected.items():
        assert torch.equal(imported.tensors[name], tensor), name


def test_another_number_of_classes_starts_the_class_layer_anew_and_says_so() -> None:
    model = build_model(MODEL)
    before = model.head.class_logits.weight.detach().clone()
    report = load_adelaidet(model, adelaidet_weights(classes=5), source="five")
    assert [entry.split()[0] for entry in report.started_anew] == [
        "head.class_logits.weight", "head.class_logits.bias",
    ]  # fmt: skip
    assert "5 classes, expected 3" in str(report)
    assert torch.equal(model.head.class_logits.weight, before)


def test_weights_without_depth_layer_grow_one() -> None:
    with_depth = MODEL.changed(mask_head=config.MaskHead(depth="product"))
    model = build_model(with_depth)
    start = model.controller.weight.detach().clone()
    weights = adelaidet_weights()
    load_adelaidet(model, weights, source="boxinst")
    theirs, ours = weights["controller.weight"], model.controller.weight
    assert torch.equal(ours[:208], theirs[:208])
    assert torch.equal(ours[216:240], theirs[208:232])
    assert torch.equal(ours[241:], theirs[232:])
    assert torch.equal(ours[208:216], start[208:216])
    assert torch.equal(ours[240], start[240])


def test_a_missing_layer_is_named() -> None:
    weights = {k: v for k, v in adelaidet_weights().items() if "fpn_lateral4" not in k}
    with pytest.raises(WeightsError, match=r"2 tensors are missing: fpn.lateral.1.weight"):
        load_adelaidet(build_model(MODEL), weights, source="x")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("res3.0.conv2_offset.weight", "layer2.0.conv2.offset.weight"),
        ("res5.2.conv3.norm.running_var", "layer4.2.bn3.running_var"),
        ("res2_0_branch1_w", "layer1.0.downsample.0.weight"),
        ("fc1000_w", None),
    ],
)
def test_detectron2_names(theirs: str, ours: str | None) -> None:
    assert from_detectron2(theirs) == ours


def test_unknown_adelaidet_names_are_nothing_of_ours() -> None:
    assert from_adelaidet("mask_head._iter", mask_convs=4) is None
    assert from_adelaidet("backbone.bottom_up.fc.weight", mask_convs=4) is None


@pytest.mark.data
def test_the_pretrained_mobilenet_gives_the_features_of_its_source(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenetv2_100_imagenet.safetensors"
    backbone = build_backbone(
        name="mobilenetv2_100", frozen_stages=5, extra={"pad_type": "same"}
    ).eval()
    report = load_backbone(backbone, path)
    assert len(report.loaded) + len(report.not_used) == len(read_tensors(path)) == 314
    whole = timm.create_model("mobilenetv2_100", pad_type="same").eval()
    whole.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in read_tensors(path).items()}
    )
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = whole.forward_intermediates(x, indices=[2, 3, 4], intermediates_only=True)
        for ours, theirs in zip(backbone(x), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer4.1.bn2.running_var", "layer3.0.conv2.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, name: str, value: float
) -> None:
    weights = timm_weights()
    weights[name].view(-1)[1] = value
    save_file(weights, tmp_path / "spoilt.safetensors")
    said = rf"spoilt.safetensors: NaN or infinite.*in 1 of \d+ tensors: {name} \(1 of \d+ values\)"
    backbone = narrow()
    before = {k: v.clone() for k, v in backbone.net.state_dict().items()}
    with pytest.raises(WeightsError, match=said):
        load_backbone(backbone, tmp_path / "spoilt.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in backbone.net.state_dict().items())


def test_a_classifier_that_nobody_uses_may_be_anything(tmp_path: Path) -> None:
    weights = timm_weights()
    weights["fc.bias"][0] = float("nan")
    save_file(weights, tmp_path / "w.safetensors")
    assert "fc.bias" in load_backbone(narrow(), tmp_path / "w.safetensors").not_used


def test_finite_whole_numbers_and_halves_pass() -> None:
    tensors = {"count": torch.tensor(3), "half": torch.ones(2, dtype=torch.float16)}
    check_finite(tensors, source="here")
    with pytest.raises(WeightsError, match=r"here: .*half \(1 of 2 values\)"):
        check_finite(tensors | {"half": torch.tensor([1.0, torch.inf]).half()}, source="here")
