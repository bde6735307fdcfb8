"""JSON from strangers: limits before memory is spent, no NaN, no key twice.

The text is never walked byte by byte in Python. What matters of its structure (quotes, brackets,
colons, commas) is filtered out at C speed into a *skeleton* about a fifth of the text, on which
NumPy decides what lies inside strings, how deep brackets nest and how many keys there are.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pydantic_core

from boxdepth.evaluate.results.problems import DataError, quoted

_STRUCTURE = b'"{}[]:,'
_NOT_STRUCTURE = bytes(set(range(256)) - set(_STRUCTURE))
# What CPython holds for one container and for one number or string, on average (measured).
_CONTAINERS = (dict, list)
_NEAR_TRIES = 64
_BYTES_PER_CONTAINER, _BYTES_PER_VALUE = 120, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLimits:
    """How much a document may ask for.

    Attributes:
        max_bytes: size of the text, in bytes.
        max_depth: nesting of brackets; a COCO document has five levels.
        max_memory: estimate of the parsed document, in bytes.
    """

    max_bytes: int = 2 * 1024**3
    max_depth: int = 64
    max_memory: int = 12 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """What NumPy found in a piece of JSON text.

    Attributes:
        depth: brackets left open at the end (negative: closed too many).
        max_depth: deepest nesting reached.
        keys: key-value pairs.
        memory: estimate in bytes of the parsed piece.
        complete: the piece does not end inside a string.
    """

    depth: int
    max_depth: int
    keys: int
    memory: int
    complete: bool


# The outermost bracket of a piece, which stands before its elements.
_START = Skeleton(depth=1, max_depth=1, keys=0, memory=_BYTES_PER_CONTAINER, complete=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Part of an array, as an array; `found` is its skeleton where that is known already."""

    text: bytes
    found: Skeleton | None


def skeleton(text: bytes, *, in_string: bool = False) -> Skeleton:
    """Brackets, keys and strings of a piece of JSON, without parsing it.

    The piece may start inside a string, but not between a backslash and what it escapes.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(text.translate(None, _NOT_STRUCTURE), dtype=np.uint8)
    quotes = marks == ord('"')
    inside = np.bitwise_xor.accumulate(quotes) != in_string if marks.size else quotes
    marks = marks[~inside & ~quotes]
    opens = (marks == ord("{")) | (marks == ord("["))
    closes = (marks == ord("}")) | (marks == ord("]"))
    depth = np.cumsum(opens.astype(np.int64) - closes)
    containers, values = int(opens.sum()), int((marks == ord(",")).sum())
    return Skeleton(
        depth=int(depth[-1]) if depth.size else 0,
        max_depth=int(depth.max()) if depth.size else 0,
        keys=int((marks == ord(":")).sum()),
        memory=containers * _BYTES_PER_CONTAINER + values * _BYTES_PER_VALUE,
        complete=(int(quotes.sum()) % 2 == 0) != in_string,
    )


def read_text(path: Path, limits: JsonLimits) -> bytes:
    """The file's bytes without a byte-order mark; raises `DataError` for what cannot be JSON."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give the path of a JSON file.")
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise DataError(
            f"{path}: {size:,} bytes, more than the limit of {limits.max_bytes:,}. "
            "Split the file, or pass wider JsonLimits from Python."
        )
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
    if not text:
        raise DataError(f"{path}: the file is empty, expected JSON. Was its writer interrupted?")
    if text[:1] not in b"[{":
        raise DataError(f"{path}: starts with {quoted(text[:12])}, expected JSON ('[' or '{{').")
    return text


def parse(
    text: bytes, *, name: str, limits: JsonLimits = JsonLimits(), found: Skeleton | None = None
) -> object:
    """One JSON value of `text`; raises `DataError` for NaN, doubled keys, depth and size."""
    found = found or skeleton(text)
    if found.max_depth > limits.max_depth:
        raise DataError(
            f"{name}: brackets nest {found.max_depth} deep, expected at most {limits.max_depth}. "
            "This is no COCO file."
        )
    if found.memory > limits.max_memory:
        raise DataError(
            f"{name}: would take about {found.memory / 1024**3:.1f} GiB of memory, more than the "
            f"limit of {limits.max_memory / 1024**3:.1f} GiB. Split it, or pass wider JsonLimits."
        )
    try:
        value = pydantic_core.from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise DataError(f"{name}: not valid JSON: {_explain(text, str(error))}") from None
    if found.keys != count_keys(value):
        _raise_doubled_key(text, name)
    return value


def load_json(path: Path, *, limits: JsonLimits = JsonLimits()) -> object:
    """The JSON document in `path`.

    Raises:
        DataError: the file is missing, too large, nests too deep, is not JSON, holds NaN or
            Infinity, or names a key twice in one object.
    """
    return parse(read_text(path, limits), name=str(path), limits=limits)


def split_array(text: bytes, *, name: str, piece: int = 2 * 1024**2) -> Iterator[Piece]:
    """A top-level array of objects as arrays of about `piece` bytes each.

    Cuts only between two elements: at a comma outside strings with nothing but the outermost
    bracket open. A text this cannot cut comes out whole, for the parser to say what is wrong.
    """
    start, end = 1, len(text) - 1
    if text[:1] != b"[" or text[-1:] != b"]" or end - start <= piece:
        yield Piece(text=text, found=None)
        return
    while start < end:
        stop, found = _next_cut(text, start, end, piece)
        elements = text[start:stop]
        if not elements.strip(b" \t\r\n"):
            raise DataError(f"{name}: not valid JSON: a comma before the last bracket.")
        yield Piece(text=b"[" + elements + b"]", found=found)
        start = stop + 1


def _next_cut(text: bytes, start: int, end: int, piece: int) -> tuple[int, Skeleton | None]:
    """The first comma between two elements at least `piece` bytes on, or the end."""
    seen, parts, tries = start, [_START], 0
    candidate = text.find(b"},", start + piece, end)
    while candidate >= 0:
        parts.append(_continued(parts[-1], text[seen : candidate + 1]))
        seen = candidate + 1
        if parts[-1].depth == 1 and parts[-1].complete:
            return seen, parts[-1]
        tries += 1  # a text without a place to cut must not be searched comma by comma
        step = 1 if tries < _NEAR_TRIES else max(piece // _NEAR_TRIES, 1)
        candidate = text.find(b"},", candidate + step, end)
    return end, None


def _continued(before: Skeleton, text: bytes) -> Skeleton:
    part = skeleton(text, in_string=not before.complete)
    return Skeleton(
        depth=before.depth + part.depth,
        max_depth=max(before.max_depth, before.depth + part.max_depth),
        keys=before.keys + part.keys,
        memory=before.memory + part.memory,
        complete=part.complete,
    )


def count_keys(value: object) -> int:
    """Key-value pairs in a parsed document, at every depth, level by level."""
    total, level = 0, [value]
    while level:
        objects = [item for item in level if type(item) is dict]
        lists = [item for item in level if type(item) is list]
        total += sum(map(len, objects))
        level = [v for item in objects for v in item.values() if type(v) in _CONTAINERS]
        level += [v for item in lists for v in item if type(v) in _CONTAINERS]
    return total


def _explain(text: bytes, message: str) -> str:
    for word in (b"NaN", b"Infinity"):
        if word in text and "expected" in message:
            return f"{message} (the file holds {word.decode()}, which is no JSON number)"
    return message


def _raise_doubled_key(text: bytes, name: str) -> NoReturn:
    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in items]
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            value = quoted(dict(items))
            raise DataError(f"{name}: key {quoted(twice)} stands twice in one object: {value}")
        return dict(items)

    json.loads(text, object_pairs_hook=pairs)
    raise DataError(f"{name}: a key stands twice in one object. Remove one of them.")
