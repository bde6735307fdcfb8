"""JSON from strangers: size, memory and depth are limited, and what is no JSON is said in words.

A file is parsed once, by msgspec, straight into the records that its reader asks for; what that
does not take (text for numbers, nulls, NaN, broken records) is parsed by the standard library into
plain objects, so that the reader can name each record that is at fault.
"""

import gzip
import io
import json
import stat
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from boxdepth.evaluate.results.problems import DataError, quoted

# What CPython holds for every value between two commas, containers included (measured).
_BYTES_PER_VALUE = 100
_GZIP = b"\x1f\x8b"
_PIECE = 2**28
Shape = TypeVar("Shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLimits:
    """How much a document may ask for. Brackets may nest as deep as the parser's stack allows.

    Attributes:
        max_bytes: size of the text, in bytes, after decompression.
        max_memory: estimate of the parsed document, in bytes.
    """

    max_bytes: int = 4 * 1024**3
    max_memory: int = 24 * 1024**3


def read_text(path: Path, limits: JsonLimits = JsonLimits()) -> bytes:
    """The text of a file, a pipe or (`-`) standard input, gzipped or not, without byte-order mark.

    Raises:
        DataError: it is missing, a folder, empty, larger than `limits`, or cannot be JSON.
    """
    if str(path) == "-":
        raw = _read(sys.stdin.buffer, "standard input", limits)
    else:
        path = path.expanduser()
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"{path}: no such file. Give the path of a JSON file.") from None
        if stat.S_ISDIR(mode):
            raise DataError(f"{path}: is a folder. Name the JSON file in it.")
        with path.open("rb") as file:
            raw = _read(file, str(path), limits)
    text = raw.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
    if not text:
        raise DataError(f"{path}: the file is empty, expected JSON. Was its writer interrupted?")
    if text[:1] not in b"[{":
        raise DataError(f"{path}: starts with {quoted(text[:12])}, expected JSON ('[' or '{{').")
    memory = _BYTES_PER_VALUE * len(text) // 2  # every value but the last has a comma behind it
    if memory > limits.max_memory:
        memory = _BYTES_PER_VALUE * (text.count(b",") + text.count(b"{"))
    if memory > limits.max_memory:
        raise DataError(
            f"{path}: would take about {memory / 1024**3:.1f} GiB of memory, more than the limit "
            f"of {limits.max_memory / 1024**3:.1f} GiB. Split it, or pass wider JsonLimits."
        )
    return text


def parse_as(text: bytes, shape: type[Shape]) -> Shape | None:
    """The text as typed records, or None if it is anything else (see `parse`)."""
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def parse(text: bytes, *, name: str) -> object:
    """The text as plain objects, NaN and infinity included: readers refuse them by record.

    Raises:
        DataError: it is no JSON, or nests too deep.
    """
    try:
        value: object = msgspec.json.decode(text)
        return value
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise DataError(
            f"{name}: brackets nest hundreds deep, a COCO file's five. This is no COCO file."
        ) from None
    except ValueError as error:
        raise DataError(f"{name}: not valid JSON: {error}") from None


def load_json(path: Path, *, limits: JsonLimits = JsonLimits()) -> object:
    """The JSON document in `path`.

    Raises:
        DataError: the file is missing, too large, nests too deep, or is not JSON.
    """
    return parse(read_text(path, limits), name=str(path))


def _read(file: BinaryIO, name: str, limits: JsonLimits) -> bytes:
    raw = _up_to(file, name, limits)
    if raw[:2] != _GZIP:
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as unzipped:
            return _up_to(unzipped, name, limits)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name}: broken gzip file ({error}). Compress it again.") from None


def _up_to(file: BinaryIO | gzip.GzipFile, name: str, limits: JsonLimits) -> bytes:
    pieces, size = [], 0
    while size <= limits.max_bytes and (piece := file.read(_PIECE)):
        pieces.append(piece)
        size += len(piece)
    if size > limits.max_bytes:
        raise DataError(
            f"{name}: more bytes than the limit of {limits.max_bytes:,}. "
            "Split the file, or pass wider JsonLimits from Python."
        )
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _whole(digits: str) -> int | float:
    """A whole number; one of thousands of digits as infinity, which is what a float makes of it."""
    return int(digits) if len(digits) < 1000 else float(digits)
