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


def columns(strings: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(string) for string in strings], dtype=np.int64)
    return np.frombuffer(b"".join(strings), dtype=np.uint8), lengths


@given(st.lists(MASKS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_decoding_measures_as_pycocotools_does(masks: list[np.ndarray]) -> None:
    data, lengths = columns([encoded(mask) for mask in masks])
    assert rle.well_formed(data, lengths).all()
    runs = rle.decode_strings(data, lengths)
    sizes = np.array([mask.shape for mask in masks])
    assert rle.fills(runs, sizes.prod(axis=1)).all()
    assert not len(rle.not_canonical(runs))
    assert rle.areas(runs).tolist() == [int(mask.sum()) for mask in masks]
    coded = [{"size": list(mask.shape), "counts": encoded(mask)} for mask in masks]
    assert rle.bounding_boxes(runs, sizes[:, 0]).tolist() == mask_api.toBbox(coded).tolist()
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(rle.to_mask(runs.lengths(index), *mask.shape), mask)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_encoding_writes_pycocotools_bytes(mask: np.ndarray) -> None:
    assert rle.encode(rle.from_mask(mask)) == encoded(mask)


@pytest.mark.parametrize("height", [1, 640, 4096])
def test_long_runs_survive(height: int) -> None:
    lengths = [height * 4000, 1, height * 4000 - 2, 1]
    data, sizes = columns([rle.encode(lengths)])
    assert rle.decode_strings(data, sizes).lengths(0).tolist()[:4] == lengths


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_accepted_decode_to_what_pycocotools_sees(strings: list[bytes]) -> None:
    data, lengths = columns(strings)
    good = rle.well_formed(data, lengths)
    kept = [string for string, is_good in zip(strings, good, strict=True) if is_good]
    runs = rle.decode_strings(*columns(kept))
    totals = [int(runs.lengths(i).sum()) for i in range(len(kept))]
    for index, (string, total) in enumerate(zip(kept, totals, strict=True)):
        fits = 0 < total <= 10_000 and rle.fills(runs, np.array(totals))[index]
        if fits and index not in rle.not_canonical(runs):
            reference = mask_api.decode({"size": [total, 1], "counts": string})
            np.testing.assert_array_equal(
                rle.to_mask(runs.lengths(index), total, 1), reference.astype(bool)
            )


@pytest.mark.parametrize(
    "string",
    [b"", b"/", b"\x00", b"p", b"\xff12", b"P", b"0P", b"PPPPPPP0", b"oooooooo0", b"1 2"],
    ids=repr,
)
def test_what_is_not_the_alphabet_or_does_not_end_is_refused(string: bytes) -> None:
    good, fine = columns([b"52", string, b"52"]), [True, False, True]
    assert rle.well_formed(*good).tolist() == fine


def test_masks_that_miss_their_image_or_go_backwards_are_found() -> None:
    strings = [rle.encode(lengths) for lengths in ([4, 2], [4, 3], [5], [3, -1, 4], [-1, 7])]
    runs = rle.decode_strings(*columns(strings))
    assert rle.fills(runs, np.full(5, 6)).tolist() == [True, False, False, False, False]


def test_empty_runs_inside_are_merged() -> None:
    lengths = [0, 3, 0, 2, 4, 0, 0]
    data, sizes = columns([rle.encode(lengths)])
    assert rle.not_canonical(rle.decode_strings(data, sizes)).tolist() == [0]
    assert rle.merge_empty(lengths) == [0, 5, 4]
    assert rle.merge_empty([5, 0, 0]) == [5]
