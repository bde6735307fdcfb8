"""The one image decoder of the project.

Pillow reads every header and says what is wrong with a file.  The pixels of sound RGB and grey
JPEGs are decoded by libjpeg-turbo without the detours of Pillow, which uses the same library:
the same pixels in two thirds of the time.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from boxdepth.depthgen.store.errors import ImageError

MAX_PIXELS: Final = 50_000_000
"""Larger images are refused by their header, before anything is decoded."""

EXIF_POLICY: Final = "ignored"
"""The orientation tag is ignored, as COCO's own tools do; the size check finds the other
reading."""

IMAGE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif"}
)
"""Endings, in lower case, of files that count as images when a folder is listed."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
_READ: Final = "JPEG, PNG, WebP, TIFF, BMP or HEIC"
_EIGHT_BIT_MODES: Final = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}
)
_SIXTEEN_BIT_MODES: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_JPEG_MODES: Final = frozenset({"L", "RGB"})
"""Those that libjpeg-turbo brings to RGB by itself."""
_OF_ONE_FRAME: Final = frozenset({"PNG", "WEBP", "TIFF"})
_HEIC_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
)
_EXIF_ORIENTATION_TAG: Final = 0x0112
_BITS_PER_SAMPLE_TAG: Final = 258
_ORIENTATIONS_THAT_SWAP_SIDES: Final = frozenset({5, 6, 7, 8})


def decode_image(
    data: bytes,
    *,
    expected_size: tuple[int, int] | None,
    name: str,
    max_pixels: int = MAX_PIXELS,
    change: Callable[[Image.Image], Image.Image] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image file to RGB.

    JPEG, PNG, WebP, TIFF and BMP; HEIC where pillow-heif is installed. Grey, palette, RGBA and CMYK
    images become RGB (alpha is dropped). Of 16 bits a channel the upper eight are taken, whatever
    the range that is used. The EXIF orientation is ignored: boxes refer to the pixels as they lie
    in the file. The header is checked before the pixels are decoded.

    Args:
        data: The bytes of the whole file.
        expected_size: (height, width) in pixels that the annotations promise; ``None`` accepts any.
        name: What the messages call the image.
        max_pixels: A larger image is refused before anything is decoded.
        change: Made of the RGB picture before it becomes an array: a resize, and the array of full
            size never is.

    Raises:
        ImageError: Another format, cut short, of another size than promised, larger than
            ``max_pixels``, of several frames, or with numbers that are no 8 or 16-bit colours.
    """
    shown = ascii(name)
    with _opened(data, shown) as image:
        _check_header(image, expected_size=expected_size, shown=shown, limit=max_pixels)
        if change is None and (pixels := _jpeg_pixels(data, image)) is not None:
            return pixels
        image.load()
        if image.mode in _SIXTEEN_BIT_MODES:
            upper = (np.array(image).astype(np.uint16) >> 8).astype(np.uint8)
            rgb = Image.fromarray(np.repeat(upper[..., None], 3, axis=-1))
        else:
            rgb = image if image.mode == "RGB" else image.convert("RGB")  # which copies as well
        return np.array(change(rgb) if change else rgb, dtype=np.uint8)


def _jpeg_pixels(data: bytes, header: Image.Image) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels of a sound JPEG; ``None`` where Pillow has to decode, or to say what is wrong."""
    if header.format != "JPEG" or header.mode not in _JPEG_MODES:
        return None
    try:
        pixels: UInt8[np.ndarray, "h w 3"] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:  # a warning is an error here, so that damage looks as it does to Pillow
        return None
    return pixels if pixels.shape == (header.height, header.width, 3) else None


def image_size(data: bytes, *, name: str) -> tuple[int, int]:
    """(height, width) from the header; the beginning of a file may suffice, the whole always does.

    Raises:
        ImageError: As ``decode_image`` has it, of the header.
    """
    shown = ascii(name)
    with _opened(data, shown) as image:
        _check_header(image, expected_size=None, shown=shown)
        return image.height, image.width


def has_sixteen_bits(data: bytes) -> bool:
    """True for a file of 16 bits a channel, of which decoding keeps the upper eight."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[24:25] == b"\x10"
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return 16 in tuple(image.tag_v2.get(_BITS_PER_SAMPLE_TAG, ()))  # type: ignore[attr-defined]
    except Exception:  # Pillow raises much, see _opened
        return False


@contextmanager
def _opened(data: bytes, shown: str) -> Iterator[Image.Image]:
    """The file as Pillow sees it; whatever is wrong with it, here and later, is an ImageError."""
    if not data:
        raise ImageError(f"{shown}: the file is empty; fetch it again")
    formats: tuple[str, ...] = _FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        _learn_heic(shown)
        formats = ("HEIF",)
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{shown}: {_too_large(None)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{shown}: not {_READ} (begins with {data[:8].hex(' ')}); convert it to one of them"
        ) from error
    except (
        Exception
    ) as error:  # Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error
        raise ImageError(
            f"{shown}: cannot be decoded after {len(data)} bytes ({error}); fetch the file again"
        ) from error


def _learn_heic(shown: str) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError(
            f"{shown}: HEIC needs pillow-heif: pip install 'boxdepth-depthgen[heic]', or convert "
            "the file to JPEG"
        ) from error
    register_heif_opener()


def exif_orientation(data: bytes) -> int:
    """The orientation that the file's EXIF asks for, 1 (as it lies) to 8; 1 where it asks nothing.

    Nothing is decoded. ``decode_image`` ignores it: boxes refer to the pixels as they lie in the
    file.
    """
    try:
        with _opened(data, "") as image:
            value = image.getexif().get(_EXIF_ORIENTATION_TAG, 1)
    except ImageError:  # a damaged tag turns nothing
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_header(
    image: Image.Image,
    *,
    expected_size: tuple[int, int] | None,
    shown: str,
    limit: int = MAX_PIXELS,
) -> None:
    height, width = image.height, image.width
    if height * width > limit:
        raise ImageError(f"{shown}: {_too_large((height, width), limit)}")
    if expected_size is not None and (height, width) != tuple(expected_size):
        raise ImageError(f"{shown}: {_wrong_size(image, expected_size)}")
    if image.mode not in _EIGHT_BIT_MODES | _SIXTEEN_BIT_MODES:
        raise ImageError(
            f"{shown}: pixel mode {image.mode!r} where 8 or 16 bits a channel are expected; "
            "convert it with a scaling of your choice"
        )
    if image.format in _OF_ONE_FRAME and getattr(image, "n_frames", 1) > 1:
        raise ImageError(
            f"{shown}: {image.n_frames} frames or pages; save the one that the boxes refer to"  # type: ignore[attr-defined]
        )


def _too_large(size: tuple[int, int] | None, limit: int = MAX_PIXELS) -> str:
    seen = "the header promises far more" if size is None else f"{size[0]}x{size[1]} pixels"
    return f"{seen}, and the limit is {limit:,} pixels; scale it down together with its boxes"


def _wrong_size(image: Image.Image, expected: tuple[int, int]) -> str:
    text = (
        f"the file is {image.height}x{image.width} (height x width), "
        f"but the annotations say {expected[0]}x{expected[1]}"
    )
    orientation = image.getexif().get(_EXIF_ORIENTATION_TAG, 1)
    if orientation in _ORIENTATIONS_THAT_SWAP_SIDES and (image.width, image.height) == expected:
        return (
            f"{text}: its boxes seem to refer to the picture turned by its EXIF orientation "
            f"{orientation}; turn the pixels and remove the tag (exiftran -ai FILE)"
        )
    return f"{text}; correct 'height' and 'width', or put the annotated file back"
