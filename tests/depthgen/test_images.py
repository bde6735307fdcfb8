"""The one decoder: what it accepts, what it refuses, and how it says so."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from boxdepth.depthgen.store import ImageError, decode_image

from .conftest import encode, photo


def _decode(data: bytes, size: tuple[int, int] | None = (48, 64)) -> np.ndarray:
    return decode_image(data, expected_size=size, name="a.jpg")


def test_png_pixels_come_back_exactly() -> None:
    np.testing.assert_array_equal(_decode(encode(photo(0))), photo(0))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_grey_palette_alpha_and_cmyk_become_rgb(mode: str) -> None:
    import io

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


def test_sixteen_bit_png_is_refused() -> None:
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    with pytest.raises(ImageError, match="8 bits a channel"):
        _decode(encode(grey))
    colour = bytearray(encode(photo(0)))
    colour[24] = 16
    colour[29:33] = struct.pack(">I", zlib.crc32(bytes(colour[12:29])))
    with pytest.raises(ImageError, match="16-bit channels"):
        _decode(bytes(colour))


def test_other_formats_and_empty_files_are_refused() -> None:
    with pytest.raises(ImageError, match="neither JPEG nor PNG"):
        _decode(encode(photo(0), "GIF"))
    with pytest.raises(ImageError, match="the file is empty"):
        _decode(b"")


def test_png_called_jpg_is_fine_and_odd_names_are_shown_safely() -> None:
    assert _decode(encode(photo(0))).shape == (48, 64, 3)
    with pytest.raises(ImageError, match=r"'evil\\u202e\\n\.jpg'"):
        decode_image(b"", expected_size=None, name="evil\u202e\n.jpg")


def test_random_damage_never_gets_past_the_decoder_as_another_error() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG"):
        data = encode(photo(1), kind)
        for _ in range(150):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                damaged[place] = rng.integers(0, 256)
            with contextlib.suppress(ImageError):
                assert _decode(bytes(damaged)).shape == (48, 64, 3)
