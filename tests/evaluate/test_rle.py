"""Run lengths: equal to pycocotools on every mask, and nothing else is let through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_api

from boxdepth.evaluate.results import rle

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def encoded(mask: np.ndarray) -> bytes:
    return mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def measured(strings: list[bytes], pixels: list[int]) -> tuple[list[bool], list[int]]:
    lengths = np.array([len(string) for string in strings], dtype=np.int64)
    data = np.frombuffer(b"".join(strings), dtype=np.uint8)
    good, areas = rle.measure(data, lengths, np.array(pixels))
    return good.tolist(), areas.tolist()


@given(st.lists(MASKS, min_size=1, max_size=6))
@settings(max_examples=60)
def test_masks_measure_and_decode_as_pycocotools_has_them(masks: list[np.ndarray]) -> None:
    strings = [encoded(mask) for mask in masks]
    good, areas = measured(strings, [mask.size for mask in masks])
    assert all(good)
    assert areas == [int(mask.sum()) for mask in masks]
    for string, mask in zip(strings, masks, strict=True):
        runs = rle.decode(string)
        assert runs is not None
        np.testing.assert_array_equal(rle.to_mask(runs, *mask.shape), mask)


@given(MASKS)
@settings(max_examples=60)
def test_encoding_writes_pycocotools_bytes(mask: np.ndarray) -> None:
    assert rle.encode(rle.from_mask(mask)) == encoded(mask)


@pytest.mark.parametrize("side", [1, 640, 65_535])
def test_long_runs_survive(side: int) -> None:
    lengths = [side * 65_500, 1, side * 30, 5]
    string = rle.encode(lengths)
    assert rle.decode(string) == lengths
    assert measured([string], [sum(lengths)]) == ([True], [6])


def is_canonical(string: bytes, pixels: int) -> bool:
    """The rule in words: whole numbers, no run negative, none empty but the first, all pixels."""
    runs = rle.decode(string)
    return runs is not None and runs[0] >= 0 and min([1, *runs[1:]]) > 0 and sum(runs) == pixels


@given(st.lists(st.binary(max_size=12) | MASKS.map(encoded), min_size=1, max_size=6), st.data())
@settings(max_examples=300)
def test_what_is_accepted_is_canonical_and_what_pycocotools_sees(strings, data) -> None:
    runs = [rle.decode(string) or [1] for string in strings]
    pixels = [max(1, sum(r) + data.draw(st.sampled_from([0, 0, 0, 1]))) for r in runs]
    good, areas = measured(strings, pixels)
    for string, total, is_good, area in zip(strings, pixels, good, areas, strict=True):
        if is_good:
            assert is_canonical(string, total)
            if total <= 10_000:
                reference = mask_api.decode({"size": [total, 1], "counts": string})
                assert area == int(reference.sum())
    if all(map(is_canonical, strings, pixels)):  # beside a broken one, a good one may be doubted
        assert all(good)


@pytest.mark.parametrize(
    "string",
    [b"", b"/", b"\x00", b"p", b"\xff12", b"P", b"0P", b"PPPPPPPP0", b"oooooooo0", b"1 2"],
    ids=repr,
)
def test_what_is_not_the_alphabet_or_does_not_end_is_refused(string: bytes) -> None:
    assert rle.decode(string) is None
    assert measured([b"52", string, b"52"], [7, 7, 7])[0][1] is False


@pytest.mark.parametrize("runs", [[4, 3], [5], [3, -1, 4], [-1, 7], [0, 3, 0, 3], [4, 2, 0]])
def test_masks_that_miss_their_image_go_backwards_or_have_empty_runs_are_found(runs) -> None:
    assert measured([b"42", rle.encode(runs), b"42"], [6, 6, 6])[0] == [True, False, True]


def test_empty_runs_inside_are_merged() -> None:
    assert rle.merge_empty([0, 3, 0, 2, 4, 0, 0]) == [0, 5, 4]
    assert rle.merge_empty([5, 0, 0]) == [5]
