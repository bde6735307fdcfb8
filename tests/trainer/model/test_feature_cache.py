"""Features of a frozen backbone are computed once for the same pixels, and are those it has."""

import copy

import pytest
import torch
from torch import Tensor

from boxdepth.trainer import config
from boxdepth.trainer.build import build_model
from boxdepth.trainer.model.feature_cache import FeatureCache

FROZEN = config.Model(
    num_classes=2,
    backbone=config.Backbone(
        name="resnet10t",
        frozen_stages=5,
        extra={"channels": (16, 32, 64, 64), "stem_width": 8},
        cache_mb=8,
    ),
    fpn_channels=32,
    fcos=config.FcosHead(convs=1),
    mask_branch=config.MaskBranch(channels=16, convs=1),
)
SIZES = torch.tensor([[64, 96], [50, 60]])


def images() -> Tensor:
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    pixels[1, :, 50:], pixels[1, :, :, 60:] = 0, 0
    return pixels


class Counted:
    """One feature of stride 32 that says how often it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        self.asked.append((*images.shape[-2:], *sizes[0].tolist()))
        rows, columns = (side // 32 for side in images.shape[-2:])
        return [torch.full((1, 1, rows, columns), float(len(self.asked)))]


def test_the_same_pixels_are_looked_at_once_and_alone() -> None:
    cache, compute, batch = FeatureCache(1 << 20), Counted(), images()
    [first] = cache.batch(batch, SIZES, compute)
    assert compute.asked == [(64, 96, 64, 96), (64, 64, 50, 60)]
    # the second image is padded to 64 x 64 alone: its last column belongs to the batch
    assert first[:, 0].tolist() == [[[1, 1, 1], [1, 1, 1]], [[2, 2, 0], [2, 2, 0]]]
    [again] = cache.batch(batch.flip(0), SIZES.flip(0), compute)
    assert len(compute.asked) == 2
    assert torch.equal(again, first.flip(0))
    cache.batch(batch.flip(3), SIZES, compute)  # mirrored: other pixels
    assert len(compute.asked) == 4
    cache.batch(batch, torch.tensor([[64, 90], [50, 60]]), compute)  # cut: another image
    assert len(compute.asked) == 5


def test_nothing_more_is_kept_beyond_the_limit() -> None:
    cache, compute = FeatureCache(6 * 4), Counted()  # the first image's features: 6 numbers
    for _ in range(2):
        cache.batch(images(), SIZES, compute)
    torch.manual_seed(0)
    batch = images()
    full, counted = FeatureCache(6 * 4), Counted()
    for _ in range(3):
        full.batch(batch, SIZES, counted)
    assert (len(full), full.bytes) == (1, 24)
    assert [frame[2:] for frame in counted.asked] == [(64, 96), *[(50, 60)] * 3]


@pytest.fixture
def networks() -> tuple[torch.nn.Module, torch.nn.Module]:
    made = []
    for megabytes in (0, 8):
        torch.manual_seed(0)
        backbone = FROZEN.backbone.changed(cache_mb=megabytes)
        made.append(build_model(FROZEN.changed(backbone=backbone)).train())
    return made[0], made[1]


def test_a_network_says_the_same_of_an_image_with_kept_features(networks) -> None:
    plain, keeping = networks
    batch, size = images()[:1], SIZES[:1]
    wanted = plain(batch, size)
    for _ in range(2):  # computed, then remembered
        found = keeping(batch, size)
        torch.testing.assert_close(found.mask_features, wanted.mask_features)
        for level, expected in zip(found.class_logits, wanted.class_logits, strict=True):
            torch.testing.assert_close(level, expected)
    assert len(keeping.feature_cache) == 1
    keeping.eval()(images(), SIZES)
    assert len(keeping.feature_cache) == 1, "predicting keeps nothing"


def test_what_learns_still_gets_its_gradients(networks) -> None:
    plain, keeping = networks
    batch, size = images()[:1], SIZES[:1]
    for network in (plain, keeping):
        network(batch, size).mask_features.square().sum().backward()
    for (name, one), (_, other) in zip(
        plain.named_parameters(), keeping.named_parameters(), strict=True
    ):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-3, msg=name)
    assert not any(p.requires_grad for p in keeping.backbone.parameters())


def test_a_backbone_that_learns_keeps_nothing() -> None:
    learning = FROZEN.backbone.changed(frozen_stages=4)
    assert build_model(FROZEN.changed(backbone=learning)).feature_cache is None


def test_a_copy_of_the_network_brings_no_features_along(networks) -> None:
    """A teacher begins as a copy of its student: what is kept must not stand in memory twice."""
    _, keeping = networks
    keeping(images(), SIZES)
    assert keeping.feature_cache.bytes > 0
    teacher = copy.deepcopy(keeping)
    assert (len(teacher.feature_cache), teacher.feature_cache.bytes) == (0, 0)
    assert teacher.feature_cache.limit_bytes == keeping.feature_cache.limit_bytes
