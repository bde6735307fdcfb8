"""The network's parts: shapes, counts, frozen parts, and what the dynamic head computes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model
from boxdepth.trainer.model.backbone import Backbone, build_backbone
from boxdepth.trainer.model.condinst import CondInst
from boxdepth.trainer.model.deformable import ModulatedDeformConv
from boxdepth.trainer.model.dynamic_mask_head import (
    MaskHeadSpec,
    mask_outputs,
    split_params,
)
from boxdepth.trainer.model.folded import DoneNorm, FoldedConv, absorb_norms
from boxdepth.trainer.structures import Positives

TINY = config.Model(
    num_classes=3,
    backbone=config.Backbone(
        name="resnet10t",
        frozen_stages=0,
        frozen_norm=False,
        extra={"channels": (16, 32, 64, 64), "stem_width": 8},
    ),
    fpn_channels=32,
    fcos=config.FcosHead(convs=1),
    mask_branch=config.MaskBranch(channels=16, convs=1),
)


@pytest.mark.parametrize(
    ("features", "depth", "count"),
    [(16, "off", 233), (16, "product", 242), (8, "off", 169), (8, "sum", 178)],
)
def test_number_of_dynamic_parameters(features: int, depth: str, count: int) -> None:
    assert MaskHeadSpec(features=features, depth=depth).num_params == count  # type: ignore[arg-type]


def one_positive(params: Tensor, *, level: int = 0) -> Positives:
    zero = torch.zeros(1, dtype=torch.int64)
    return Positives(
        location_xy=torch.tensor([[4.0, 4.0]]),
        level=zero + level,
        box_index=zero,
        image_index=zero,
        params=params[None],
    )


def test_depth_layer_of_the_worked_example() -> None:
    """method.md, golden vector 8: F1 = (1, 2, 0..) reaches the depth and the mask layer."""
    spec = MaskHeadSpec(features=16)
    params = torch.zeros(spec.num_params)
    weights, biases = split_params(params[None], spec)
    biases[1][0, :2] = torch.tensor([1.0, 2.0])
    weights[2][0, 0, :2] = torch.tensor([0.5, -0.25])
    biases[2][0] = 0.1
    weights[3][0, 0, :2] = 1.0
    biases[3][0] = -0.5
    out = mask_outputs(torch.randn(1, 16, 1, 1), one_positive(params), spec)
    assert out.depth is not None
    assert out.logits.shape == (1, 1, 2, 2), "the one cell at stride 8, four times"
    for maps, expected in (
        (out.depth, 0.524979),
        (out.logits, 1.312448),
        (out.logits.sigmoid(), 0.787923),
    ):
        torch.testing.assert_close(maps, torch.full_like(maps, expected), atol=1e-6, rtol=0)


def test_depth_joins_by_sum_if_told() -> None:
    spec = MaskHeadSpec(features=16, depth="sum")
    params = torch.zeros(spec.num_params)
    params[-2:] = torch.tensor([0.5, 2.0])
    out = mask_outputs(torch.randn(1, 16, 1, 1), one_positive(params), spec)
    torch.testing.assert_close(out.logits, torch.full_like(out.logits, 2.5))


def test_parameters_are_all_weights_then_all_biases() -> None:
    spec = MaskHeadSpec(features=16)
    weights, biases = split_params(torch.arange(242.0)[None], spec)
    assert [tuple(w.shape[1:]) for w in weights] == [(8, 18), (8, 8), (1, 8), (1, 8)]
    assert [int(w[0, 0, 0]) for w in weights] == [0, 144, 208, 216]
    assert [int(b[0, 0]) for b in biases] == [224, 232, 240, 241]


def test_mask_loss_trains_the_depth_layer_too() -> None:
    spec = MaskHeadSpec(features=16)
    params = (0.3 * torch.randn(spec.num_params)).requires_grad_()
    features = torch.randn(1, 16, 4, 4, requires_grad=True)
    mask_outputs(features, one_positive(params), spec).logits.sum().backward()
    assert params.grad is not None
    assert params.grad[208:216].abs().sum() > 0
    assert features.grad is not None


def test_positives_of_mixed_images_see_their_own_features() -> None:
    torch.manual_seed(0)
    spec = MaskHeadSpec(features=16)
    features = torch.randn(3, 16, 4, 6)
    image_index = torch.tensor([2, 0, 2, 0, 0])
    positives = Positives(
        location_xy=torch.rand(5, 2) * 40,
        level=torch.tensor([0, 1, 4, 2, 0]),
        box_index=torch.arange(5),
        image_index=image_index,
        params=torch.randn(5, spec.num_params),
    )
    together = mask_outputs(features, positives, spec)
    for i in range(5):
        alone = mask_outputs(
            features[image_index[i]][None],
            Positives(
                location_xy=positives.location_xy[i : i + 1],
                level=positives.level[i : i + 1],
                box_index=torch.zeros(1, dtype=torch.int64),
                image_index=torch.zeros(1, dtype=torch.int64),
                params=positives.params[i : i + 1],
            ),
            spec,
        )
        torch.testing.assert_close(together.logits[i], alone.logits[0], atol=1e-4, rtol=1e-4)


def test_counts_are_known_or_counted() -> None:
    torch.manual_seed(0)
    spec = MaskHeadSpec(features=4)
    positives = Positives(
        location_xy=torch.rand(3, 2) * 32,
        level=torch.tensor([0, 1, 0]),
        box_index=torch.tensor([0, 1, 2]),
        image_index=torch.tensor([2, 0, 0]),
        params=torch.randn(3, spec.num_params),
    )
    features = torch.randn(3, 4, 4, 4)
    counted = mask_outputs(features, positives, spec)
    known = mask_outputs(features, replace(positives, counts=(2, 0, 1)), spec)
    assert torch.equal(counted.logits, known.logits)


def test_no_positives_give_no_masks_and_keep_the_graph() -> None:
    spec = MaskHeadSpec(features=16)
    features = torch.randn(2, 16, 4, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    params = torch.zeros(5, spec.num_params, requires_grad=True)
    positives = Positives(
        location_xy=torch.zeros(0, 2), level=none, box_index=none, image_index=none,
        params=params[:0],
    )  # fmt: skip
    out = mask_outputs(features, positives, spec)
    assert out.logits.shape == (0, 1, 8, 8)
    out.logits.sum().backward()
    assert params.grad is not None


@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("mobilenetv2_100", (32, 96, 320), {"extra": {"pad_type": "same"}}),
        ("resnet10t", (128, 256, 512), {}),
        ("resnet50", (64, 128, 256), {"extra": {"channels": (8, 16, 32, 64)}}),
        ("swin_tiny_patch4_window7_224", (192, 384, 768), {"frozen_stages": 0}),
        ("convnext_tiny", (192, 384, 768), {}),
    ],
)
def test_backbones_give_features_at_three_strides(
    name: str, channels: tuple[int, ...], options: dict[str, object]
) -> None:
    backbone = build_backbone(name=name, **options).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[1:]) for x in features] == [
        (c, 64 // s, 96 // s) for c, s in zip(channels, (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("resnet101", {"deformable_stages": (3, 4, 5)}, (512, 1024, 2048)),
        ("swin_base_patch4_window7_224", {"frozen_stages": 0}, (256, 512, 1024)),
    ],
)
def test_the_papers_large_backbones_learn(
    name: str, options: dict[str, object], channels: tuple[int, ...]
) -> None:
    backbone = build_backbone(name=name, **options).train()  # type: ignore[arg-type]
    features = backbone(torch.rand(1, 3, 96, 160))
    assert [tuple(x.shape[1:]) for x in features] == [
        (c, 96 // s, 160 // s) for c, s in zip(channels, (8, 16, 32), strict=True)
    ]
    sum(x.square().mean() for x in features).backward()
    learning = [p for p in backbone.parameters() if p.requires_grad]
    assert learning
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learning)


def test_unknown_backbone_says_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"no backbone 'resnet5O'.*nearest: .*resnet50"):
        build_backbone(name="resnet5O")


def test_a_backbone_without_the_three_strides_is_refused() -> None:
    with pytest.raises(ValueError, match="vit_tiny"):
        build_backbone(name="vit_tiny_patch16_224")


@pytest.mark.parametrize("option", [{"stride_in_1x1": True}, {"deformable_stages": (3,)}])
def test_resnet_options_are_refused_elsewhere(option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="needs a ResNet with bottlenecks"):
        build_backbone(name="mobilenetv2_100", **option)  # type: ignore[arg-type]


def narrow_resnet(**options: object) -> Backbone:
    extra = {"channels": (8, 16, 32, 64)}
    return build_backbone(name="resnet50", extra=extra, **options)  # type: ignore[arg-type]


def test_both_stride_placements_halve_the_same_stages() -> None:
    block = narrow_resnet(stride_in_1x1=True).net.layer2[0]  # type: ignore[index,union-attr]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    block = narrow_resnet().net.layer2[0]  # type: ignore[index,union-attr]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_deformable_stages_begin_as_plain_convolutions_of_half_strength() -> None:
    backbone = narrow_resnet(deformable_stages=(5,))
    deformable = [m for m in backbone.modules() if isinstance(m, ModulatedDeformConv)]
    assert len(deformable) == 3
    conv = deformable[1]
    x = torch.randn(1, conv.weight.shape[1], 6, 7)
    plain = nn.functional.conv2d(x, conv.weight, padding=1)
    torch.testing.assert_close(conv(x), 0.5 * plain, atol=1e-5, rtol=1e-4)
    conv(x).sum().backward()
    assert conv.offset.weight.grad is not None


@pytest.mark.parametrize(
    ("stages", "frozen"),
    [(0, ()), (1, ("conv1", "bn1")), (2, ("conv1", "bn1", "layer1"))],
)
def test_frozen_stages_neither_learn_nor_follow_statistics(
    stages: int, frozen: tuple[str, ...]
) -> None:
    backbone = narrow_resnet(frozen_stages=stages).train()
    for name, parameter in backbone.net.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen or ("-",)), name
    for name, module in backbone.net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training is not name.startswith(frozen or ("-",)), name


def test_all_stages_of_other_architectures_can_be_frozen() -> None:
    for name in ("mobilenetv2_100", "convnext_tiny"):
        backbone = build_backbone(name=name, frozen_stages=5)
        assert not any(p.requires_grad for p in backbone.parameters()), name


def test_the_stem_of_a_swin_is_its_patch_embedding() -> None:
    backbone = build_backbone(name="swin_tiny_patch4_window7_224", frozen_stages=1)
    frozen = {n.split(".")[0] for n, p in backbone.net.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed"}


def test_frozen_norms_stay_frozen_in_training_mode() -> None:
    backbone = narrow_resnet(frozen_norm=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = norms[3].running_mean.clone()  # type: ignore[union-attr]
    backbone(torch.randn(2, 3, 64, 64))
    assert torch.equal(norms[3].running_mean, before)  # type: ignore[arg-type]
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


@pytest.fixture(scope="module")
def tiny() -> CondInst:
    torch.manual_seed(0)
    return build_model(TINY)


def test_padding_is_zero_after_normalisation(tiny: CondInst) -> None:
    images = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    values = tiny.normalized(images, torch.tensor([[40, 50]]))
    assert (values[0, :, 40:] == 0).all()
    assert (values[0, :, :, 50:] == 0).all()
    assert (values[0, :, :40, :50] > 0).all()


def test_channels_come_in_the_order_of_the_weights() -> None:
    model = build_model(
        TINY.model_copy(
            update={
                "backbone": TINY.backbone.model_copy(
                    update={"bgr": True, "pixel_mean": (0, 0, 0), "pixel_std": (1, 1, 1)}
                )
            }
        )
    )
    red = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 9
    assert model.normalized(red, torch.tensor([[32, 32]]))[0, :, 0, 0].tolist() == [0, 0, 9]


def test_at_the_start_the_depth_is_one_half(tiny: CondInst) -> None:
    assert (tiny.controller.bias == 0).all()
    spec = tiny.mask_head
    out = mask_outputs(torch.randn(1, 16, 4, 4), one_positive(torch.zeros(spec.num_params)), spec)
    assert out.depth is not None
    assert (out.depth == 0.5).all()


def test_bfloat16_outputs_stay_close(tiny: CondInst) -> None:
    tiny.eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    sizes = torch.tensor([[64, 64]])
    with torch.no_grad():
        full = tiny(images, sizes)
        with torch.autocast("cpu", torch.bfloat16):
            half = tiny(images, sizes)
    error = (half.mask_features.float() - full.mask_features).abs().max()
    assert error < 0.1 * full.mask_features.abs().max()


def test_semantic_logits_exist_in_training_only() -> None:
    settings = TINY.mask_branch.changed(semantic_loss=True)
    model = build_model(TINY.changed(mask_branch=settings))
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    sizes = torch.tensor([[64, 64], [64, 64]])
    logits = model.train()(images, sizes).semantic_logits
    assert logits is not None
    assert logits.shape == (2, 3, 8, 8)
    assert model.eval()(images, sizes).semantic_logits is None


def test_unknown_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="number of classes is unknown"):
        build_model(TINY.changed(num_classes=0))


def test_controller_must_fit_the_mask_head(tiny: CondInst) -> None:
    with pytest.raises(ValueError, match="predicts 242 numbers, the mask head needs 233"):
        CondInst(
            backbone=tiny.backbone,
            fpn=tiny.fpn,
            head=tiny.head,
            controller=tiny.controller,
            mask_branch=tiny.mask_branch,
            mask_head=MaskHeadSpec(depth="off"),
        )


def _with_frozen_norms(name: str) -> tuple[Backbone, Backbone]:
    """In double precision, of random statistics: folded, and the plain form of the same."""
    torch.manual_seed(0)
    size = {"channels": (8, 8, 16, 16), "stem_width": 4} if name != "resnet18" else {}
    folded = build_backbone(name=name, frozen_stages=1, frozen_norm=True, extra=size).double()
    for norm in (m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(std=0.1)
    plain = build_backbone(name=name, frozen_stages=1, extra=size).double()
    assert plain.state_dict().keys() == folded.state_dict().keys()
    plain.load_state_dict(folded.state_dict())
    return folded, plain.eval()


@pytest.mark.parametrize("name", ["resnet50", "resnet18", "resnet50d"])
def test_folded_norms_are_the_norms(name: str) -> None:
    """Outputs and gradients in double precision, and every parameter under its own name."""
    folded, plain = _with_frozen_norms(name)
    folded = copy.deepcopy(folded).train()
    assert any(isinstance(m, FoldedConv) for m in folded.modules())
    x = torch.randn(2, 3, 64, 96, dtype=torch.double)
    for ours, theirs in zip(folded(x), plain(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        for ours, theirs in zip(folded(x), plain(x), strict=True):
            assert torch.equal(ours, theirs)
    for net in (folded, plain):
        sum(y.square().mean() for y in net(x)).backward()  # type: ignore[union-attr]
    gradients = dict(plain.named_parameters())
    for key, parameter in folded.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, gradients[key].grad)


@pytest.mark.parametrize("name", ["resnet50", "resnet18", "resnet50d"])
def test_absorbed_norms_are_the_norms(name: str) -> None:
    """With and without gradients, absorbed twice, and read from its parameters by a plain one."""
    absorbed, plain = _with_frozen_norms(name)
    x = torch.randn(2, 3, 64, 96, dtype=torch.double)
    expected = [y.detach() for y in plain(x)]
    before = copy.deepcopy(absorbed.state_dict())
    for _ in range(2):
        absorb_norms(absorbed)
        assert all(m.absorbed for m in absorbed.modules() if isinstance(m, DoneNorm))
        for y, same in zip(absorbed(x), expected, strict=True):
            torch.testing.assert_close(y.detach(), same)
        with torch.no_grad():
            for y, same in zip(absorbed(x), expected, strict=True):
                torch.testing.assert_close(y, same)
    plain.load_state_dict(absorbed.state_dict())
    for y, same in zip(plain(x), expected, strict=True):
        torch.testing.assert_close(y.detach(), same)
    absorbed.load_state_dict(before)
    for y, same in zip(absorbed(x), expected, strict=True):
        torch.testing.assert_close(y.detach(), same)
