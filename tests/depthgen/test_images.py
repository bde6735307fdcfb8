"""The one decoder: what it accepts, what it refuses, and how it says so."""

import contextlib
import io
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from boxdepth.depthgen.preprocess import Fit, Preprocessing, pillow_resize, resize_image
from boxdepth.depthgen.store import ImageError, decode_image
from boxdepth.depthgen.store.images import has_sixteen_bits, image_size

from .conftest import encode, photo


def _decode(data: bytes, size: tuple[int, int] | None = (48, 64)) -> np.ndarray:
    return decode_image(data, expected_size=size, name="a.jpg")


def test_png_pixels_come_back_exactly() -> None:
    np.testing.assert_array_equal(_decode(encode(photo(0))), photo(0))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_grey_palette_alpha_and_cmyk_become_rgb(mode: str) -> None:
    image = Image.fromarray(photo(0)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG")
    pixels = _decode(buffer.getvalue())
    assert pixels.shape == (48, 64, 3)
    if mode != "1":
        expected = np.array(image.convert("RGB"), dtype=np.int64)
        assert np.abs(pixels - expected).mean() < 6


def test_truncated_jpegs_are_refused_at_every_cut() -> None:
    data = encode(photo(0), "JPEG", quality=90)
    for cut in range(0, len(data) - 2, max(1, len(data) // 100)):
        with pytest.raises(ImageError, match=r"a\.jpg"):
            _decode(data[:cut])


JPEGS: list[dict[str, Any]] = [
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:2:0"},
    {"subsampling": "4:1:1"},
    {"progressive": True},
    {"optimize": True, "restart_marker_blocks": 3},
    {"keep_rgb": True},
]


def _by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("options", JPEGS, ids=str)
@pytest.mark.parametrize("size", [(48, 64), (47, 61), (1, 1), (1, 90), (33, 17)])
def test_jpegs_come_back_as_pillow_decodes_them(
    options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for quality in (30, 95, 100):
        data = encode(photo(0, *size), "JPEG", quality=quality, **options)
        expected = _by_pillow(data)
        with monkeypatch.context() as patch:  # the pixels are not Pillow's own
            patch.delattr(JpegImageFile, "load_read")
            np.testing.assert_array_equal(_decode(data, size), expected)


def test_grey_jpegs_too() -> None:
    data = encode(photo(0)[..., 0], "JPEG", quality=90)
    np.testing.assert_array_equal(_decode(data), _by_pillow(data))


def test_real_photographs_come_back_as_pillow_decodes_them(shared_data: Path) -> None:
    files = sorted((shared_data / "coco-dev").rglob("*.jpg"))
    assert files
    for file in files:
        data = file.read_bytes()
        np.testing.assert_array_equal(_decode(data, None), _by_pillow(data))


def _outcome(data: bytes) -> np.ndarray | str:
    try:
        return _decode(data, None)
    except ImageError as error:
        return str(error)


def test_damage_ends_as_it_does_with_pillow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> np.ndarray:
        raise ValueError("left to Pillow")

    rng = np.random.default_rng(5)
    read = 0
    for options in JPEGS:
        data = encode(photo(2), "JPEG", quality=80, **options)
        for kind in ("cut", "flip", "tail") * 12:
            damaged = bytearray(data)
            place = int(rng.integers(len(data)))
            if kind == "cut":
                del damaged[place : place + int(rng.integers(1, 40))]
            elif kind == "flip":
                damaged[place] = int(rng.integers(256))
            else:
                damaged += rng.bytes(20)
            mine = _outcome(bytes(damaged))
            with monkeypatch.context() as patch:
                patch.setattr(simplejpeg, "decode_jpeg", refuses)
                other = _outcome(bytes(damaged))
            assert type(mine) is type(other)
            assert np.array_equal(mine, other)
            read += not isinstance(mine, str)
    assert 84 < read < 252


def test_a_header_that_lies_about_the_height_is_refused() -> None:
    data = bytearray(encode(photo(0), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = struct.pack(">H", 96)
    with pytest.raises(ImageError, match=r"the file is 96x64 .* annotations say 48x64"):
        _decode(bytes(data))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    data = bytearray(encode(photo(0)))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(ImageError, match="the limit is 50,000,000 pixels"):
        _decode(bytes(data), None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = _decode(encode(photo(0), "JPEG", quality=90))
    data = encode(photo(0), "JPEG", quality=90, exif=exif)
    np.testing.assert_array_equal(_decode(data), plain)


def test_boxes_of_the_turned_picture_are_explained() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(ImageError, match="EXIF orientation 6; turn the pixels"):
        _decode(encode(photo(0), "JPEG", exif=exif), (64, 48))


def test_other_formats_and_empty_files_are_refused() -> None:
    with pytest.raises(ImageError, match="not JPEG, PNG, WebP, TIFF, BMP or HEIC"):
        _decode(encode(photo(0), "GIF"))
    with pytest.raises(ImageError, match="the file is empty"):
        _decode(b"")


def test_png_called_jpg_is_fine_and_odd_names_are_shown_safely() -> None:
    assert _decode(encode(photo(0))).shape == (48, 64, 3)
    with pytest.raises(ImageError, match=r"'evil\\u202e\\n\.jpg'"):
        decode_image(b"", expected_size=None, name="evil\u202e\n.jpg")


def test_random_damage_never_gets_past_the_decoder_as_another_error() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
        data = encode(photo(1), kind)
        for _ in range(100):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                damaged[place] = rng.integers(0, 256)
            with contextlib.suppress(ImageError):
                assert _decode(bytes(damaged)).shape == (48, 64, 3)


def test_other_formats_of_eight_bits_come_back_exactly() -> None:
    for kind, options in (("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})):
        np.testing.assert_array_equal(_decode(encode(photo(0), kind, **options)), photo(0))


def test_heic_is_read_where_its_plug_in_is(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    data = encode(photo(0), "HEIF", quality=95)
    assert np.abs(_decode(data).astype(int) - photo(0)).mean() < 6
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'boxdepth-depthgen\[heic\]'"):
        _decode(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_sixteen_bits_the_upper_eight_are_kept(kind: str) -> None:
    grey = (np.arange(48 * 64, dtype=np.uint32) * 21).astype(np.uint16).reshape(48, 64)
    data = encode(grey, kind)
    np.testing.assert_array_equal(_decode(data), np.repeat(grey[..., None] // 256, 3, axis=-1))
    assert has_sixteen_bits(data)
    assert not has_sixteen_bits(encode(photo(0), kind))


def _png_of_sixteen_bits(pixels: np.ndarray) -> bytes:
    """A colour PNG as the specification has it: big-endian samples, filter 0 in each row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body)
        )  # fmt: skip

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_colours_of_sixteen_bits_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (48, 64, 3), dtype=np.uint16)
    data = _png_of_sixteen_bits(pixels)
    np.testing.assert_array_equal(_decode(data), pixels >> 8)
    assert has_sixteen_bits(data)


def test_numbers_that_are_no_colours_are_refused() -> None:
    depth = np.random.default_rng(0).random((48, 64), dtype=np.float32)
    with pytest.raises(ImageError, match="pixel mode 'F' where 8 or 16 bits"):
        _decode(encode(depth, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_files_of_several_frames_are_refused(kind: str) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(photo(k)) for k in range(3)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="3 frames or pages; save the one"):
        _decode(buffer.getvalue())


def test_the_size_is_read_from_the_header() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"):
        assert image_size(encode(photo(0), kind), name="a") == (48, 64)
    with pytest.raises(ImageError, match="not JPEG"):
        image_size(b"GIF89a", name="a.gif")


@pytest.mark.parametrize("aspect", ["square", "keep", "native"])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_resized_in_the_decoder_and_after_it_are_the_same_bytes(aspect: Fit, mode: str) -> None:
    """Pictures go to a depth model without an array of their full size; its input is unchanged."""
    settings = Preprocessing(
        height=32, width=32, multiple=8, aspect=aspect, resample=3, rescale=1 / 255,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
    )  # fmt: skip
    if mode == "I;16":
        data = encode(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20)
    else:
        data = encode(np.array(Image.fromarray(photo(0)).convert(mode)), "JPEG", quality=90)
    resize = pillow_resize(48, 64, settings)
    assert resize is not None
    inside = decode_image(data, expected_size=(48, 64), name="a", change=resize)
    np.testing.assert_array_equal(inside, resize_image(_decode(data), settings))


def test_what_pillow_does_not_resize_alone_is_left_to_the_array() -> None:
    plain = Preprocessing(
        height=32, width=32, multiple=1, aspect="square", resample=2, rescale=1.0,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
    )  # fmt: skip
    assert pillow_resize(48, 64, replace(plain, processor="DepthPro")) is None
    assert pillow_resize(48, 64, replace(plain, padding="reflect")) is None
