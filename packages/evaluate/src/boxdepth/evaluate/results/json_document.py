"""JSON from strangers: size, memory and depth are limited, and what is no JSON is said in words.

A file is parsed once, by msgspec, straight into the records that its reader asks for, a long list
piece by piece; what that does not take (text for numbers, nulls, NaN, broken records) is parsed
whole into plain objects, so that the reader can name each record that is at fault.
"""

import gzip
import io
import json
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from boxdepth.evaluate.results.problems import DataError, quoted

# What CPython holds for every value between two commas, containers included (measured).
_BYTES_PER_VALUE = 100
_GZIP = b"\x1f\x8b"
_BLOCK, _PIECE, _LONGEST_PIECE = 2**28, 2**19, 2**25
_SEAM = re.compile(rb"\}\s*(,)\s*$")
_SEAM_LENGTH, _SEAM_TRIES = 64, 1000
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSource:
    """An open document: bytes that can be read more than once, gzip undone.

    Attributes:
        name: what messages call it.
        file: the bytes.
        limits: how many there may be.
    """

    name: str
    file: BinaryIO
    limits: JsonLimits

    def text(self) -> bytes:
        """All of it, without byte-order mark.

        Raises:
            DataError: it is empty, larger than `limits`, or cannot be JSON.
        """
        self.file.seek(0)
        raw = _up_to(self.file, self.name, self.limits)
        text = raw.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
        if not text:
            raise DataError(
                f"{self.name}: the file is empty, expected JSON. Was its writer interrupted?"
            )
        if text[:1] not in b"[{":
            seen = quoted(text[:12])
            raise DataError(f"{self.name}: starts with {seen}, expected JSON ('[' or '{{').")
        memory, most = _BYTES_PER_VALUE * len(text) // 2, self.limits.max_memory
        if memory > most:  # every value but the last has a comma behind it
            memory = _BYTES_PER_VALUE * (text.count(b",") + text.count(b"{"))
        if memory > most:
            raise DataError(
                f"{self.name}: would take about {memory / 1024**3:.1f} GiB of memory, more than "
                f"the limit of {most / 1024**3:.1f} GiB. Split it, or pass wider JsonLimits."
            )
        return text

    def pieces(self) -> Iterator[bytes]:
        """A list of objects as shorter lists, cut where one object seems to end, the next to begin.

        If every piece is a list, then their elements in a row are the document's: there is but one
        way to read JSON. If one is not (a cut in a text, no list, no end), `text` is to be read.
        """
        self.file.seek(0)
        opening, rest, size = b"", b"", 0
        for block in iter(partial(self.file.read, _PIECE), b""):
            size += len(block)
            cut = _last_seam(block)
            if not cut:  # one may lie where two blocks meet
                rest, block = b"", rest + block
                cut = _last_seam(block)
            if cut:
                yield b"".join((opening, rest, memoryview(block)[:cut], b"]"))
                opening, rest = b"[", block[cut + 1 :]
            else:
                rest = block
            if len(rest) > _LONGEST_PIECE or size > self.limits.max_bytes:
                yield b""
                return
        yield opening + rest


def _last_seam(text: bytes) -> int:
    """Place of the last comma that looks as if it stood between two objects, 0 if there is none."""
    place = len(text)
    for _ in range(_SEAM_TRIES):
        place = text.rfind(b"{", 0, max(place, 0))
        begin = max(place - _SEAM_LENGTH, 0)
        found = _SEAM.search(text[begin:place]) if place > 0 else None
        if found:
            return begin + found.start(1)
    return 0


@contextmanager
def opened(path: Path, limits: JsonLimits = JsonLimits()) -> Iterator[JsonSource]:
    """A file, a pipe or (`-`) standard input, gzipped or not.

    Raises:
        DataError: it is missing, a folder, a broken gzip file, or longer than `limits`.
    """
    if str(path) == "-":
        held = _held(sys.stdin.buffer, "standard input", limits)
        yield JsonSource(name="-", file=held, limits=limits)
        return
    path = path.expanduser()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such file. Give the path of a JSON file.") from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a folder. Name the JSON file in it.")
    with path.open("rb") as file:
        plain = stat.S_ISREG(mode) and file.peek(2)[:2] != _GZIP
        held = file if plain else _held(file, str(path), limits)
        yield JsonSource(name=str(path), file=held, limits=limits)


def read_text(path: Path, limits: JsonLimits = JsonLimits()) -> bytes:
    """All text of a file, a pipe or (`-`) standard input, gzipped or not.

    Raises:
        DataError: it is missing, a folder, empty, larger than `limits`, or cannot be JSON.
    """
    with opened(path, limits) as source:
        return source.text()


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


def _held(file: BinaryIO, name: str, limits: JsonLimits) -> BinaryIO:
    """All bytes of a stream that may be readable only once, unzipped."""
    raw = io.BytesIO(_up_to(file, name, limits))
    if raw.getbuffer()[:2] != _GZIP:
        return raw
    try:
        with gzip.GzipFile(fileobj=raw) as unzipped:
            return io.BytesIO(_up_to(unzipped, name, limits))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name}: broken gzip file ({error}). Compress it again.") from None


def _up_to(file: BinaryIO | gzip.GzipFile, name: str, limits: JsonLimits) -> bytes:
    pieces, size = [], 0
    while size <= limits.max_bytes and (piece := file.read(_BLOCK)):
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
