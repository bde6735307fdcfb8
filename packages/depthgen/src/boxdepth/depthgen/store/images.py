"""The one image decoder of the project."""

import io
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from boxdepth.depthgen.store.errors import ImageError

MAX_PIXELS: Final = 50_000_000
"""Larger images are refused by their header, before anything is decoded."""

EXIF_POLICY: Final = "ignored"
"""The orientation tag is ignored, as COCO's own tools do; the size check finds the other
reading."""

_FORMATS: Final = ("JPEG", "PNG")
_EIGHT_BIT_MODES: Final = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
)
_EXIF_ORIENTATION_TAG: Final = 0x0112
_ORIENTATIONS_THAT_SWAP_SIDES: Final = frozenset({5, 6, 7, 8})


def decode_image(
    data: bytes, *, expected_size: tuple[int, int] | None, name: str
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a JPEG or PNG file to RGB.

    Grey, palette, RGBA and CMYK images become RGB (alpha is dropped). The EXIF orientation is
    ignored: boxes refer to the pixels as they lie in the file. The header is checked before the
    pixels are decoded.

    Args:
        data: The bytes of the whole file.
        expected_size: (height, width) in pixels that the annotations promise; ``None`` accepts any.
        name: What the messages call the image.

    Raises:
        ImageError: Not a JPEG or PNG, cut short, of another size than promised, larger than
            ``MAX_PIXELS``, animated, or with 16 bits a channel.
    """
    shown = ascii(name)
    if not data:
        raise ImageError(f"{shown}: the file is empty; fetch it again")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_header(image, data, expected_size=expected_size, shown=shown)
            image.load()
            return np.array(image.convert("RGB"), dtype=np.uint8)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{shown}: {_too_large(None)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{shown}: neither JPEG nor PNG (begins with {data[:8].hex(' ')}); convert it to one "
            "of them"
        ) from error
    except (
        Exception
    ) as error:  # Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error
        raise ImageError(
            f"{shown}: cannot be decoded after {len(data)} bytes ({error}); fetch the file again"
        ) from error


def exif_orientation(data: bytes) -> int:
    """The orientation that the file's EXIF asks for, 1 (as it lies) to 8; 1 where it asks nothing.

    Nothing is decoded. ``decode_image`` ignores it: boxes refer to the pixels as they lie in the
    file.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            value = image.getexif().get(_EXIF_ORIENTATION_TAG, 1)
    except Exception:  # a damaged tag turns nothing; Pillow raises much, see decode_image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_header(
    image: Image.Image, data: bytes, *, expected_size: tuple[int, int] | None, shown: str
) -> None:
    height, width = image.height, image.width
    if height * width > MAX_PIXELS:
        raise ImageError(f"{shown}: {_too_large((height, width))}")
    if expected_size is not None and (height, width) != tuple(expected_size):
        raise ImageError(f"{shown}: {_wrong_size(image, expected_size)}")
    sixteen_bit_png = image.format == "PNG" and data[24:25] == b"\x10"
    if sixteen_bit_png or image.mode not in _EIGHT_BIT_MODES:
        raise ImageError(
            f"{shown}: {'16-bit channels' if sixteen_bit_png else f'pixel mode {image.mode!r}'} "
            "where 8 bits a channel are expected; convert it with a scaling of your choice"
        )
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise ImageError(f"{shown}: an animated PNG; save the frame that the boxes refer to")


def _too_large(size: tuple[int, int] | None) -> str:
    seen = "the header promises far more" if size is None else f"{size[0]}x{size[1]} pixels"
    return f"{seen}, and the limit is {MAX_PIXELS:,} pixels; scale it down together with its boxes"


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
