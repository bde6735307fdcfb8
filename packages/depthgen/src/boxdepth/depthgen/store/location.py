"""Where a store's objects lie: a folder, or a prefix in an object store; one protocol for both."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import unquote, urlsplit

from boxdepth.depthgen.store.errors import ConfigError, StoreError

NOT_A_FILE: Final = -1
"""What ``Location.sizes`` says of a link or a special file."""

REMOTE_SCHEMES: Final = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "memory")

_BLOCK: Final = 8 << 20


class Location(ABC):
    """The objects of a store, by name (relative, with forward slashes).

    Every write is atomic and lasting when it returns. Objects of a finished store never change.

    Attributes:
        where: The path, or the URL; it never holds a credential.
    """

    where: Path | str
    is_remote: ClassVar[bool] = False
    """True where a request costs a way through the network."""

    @abstractmethod
    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """A whole object.

        Raises:
            ObjectMissingError: There is none of that name, or it is a link.
            StoreError: It is larger than ``limit`` bytes, or may not be read.
            EnvironmentFailure: The disk or the network fails.
        """

    @abstractmethod
    def read_range(self, name: str, *, start: int, nbytes: int) -> bytes:
        """``nbytes`` bytes of an object from ``start``.

        Raises:
            ObjectMissingError: There is none of that name.
            StoreError: It ends too early.
            EnvironmentFailure: The disk or the network fails.
        """

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ``(start, nbytes)`` of one object; neighbours may be fetched as one."""
        return [self.read_range(name, start=start, nbytes=nbytes) for start, nbytes in ranges]

    def read_all(self, names: Iterable[str], *, limit: int | None = None) -> Iterator[bytes]:
        """Whole objects in the order of ``names``; several at once where that is faster."""
        return (self.read(name, limit=limit) for name in names)

    @abstractmethod
    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Size in bytes of every object whose name starts with ``prefix``; ``NOT_A_FILE`` for
        links."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """True if there is an object of that name."""

    @abstractmethod
    def is_empty(self) -> bool:
        """True if nothing at all is there."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Make an object hold ``data``, or leave it as it was, whatever happens in between.

        Raises:
            EnvironmentFailure: The disk is full, or it or the network fails.
        """

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the place ready to be written.

        Raises:
            StoreError: Something else than a store is there; nothing of anybody's is ever mixed
                with a store.
        """

    @abstractmethod
    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Hold the store alone; the value is called before anything is made final.

        Raises:
            StoreBusyError: Somebody else is writing there, or (from the value) has taken over.
        """

    @abstractmethod
    def refuse_if_busy(self) -> None:
        """Look early, so that nobody waits for a model only to be turned away.

        Raises:
            StoreBusyError: Somebody else is writing there.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room that is left; ``None`` where nobody knows."""

    def sha256(self, name: str, *, nbytes: int) -> str:
        """The hash of an object of ``nbytes`` bytes, without holding it in memory."""
        digest = hashlib.sha256()
        for start in range(0, nbytes, _BLOCK):
            digest.update(self.read_range(name, start=start, nbytes=min(_BLOCK, nbytes - start)))
        return digest.hexdigest()

    def __str__(self) -> str:
        return str(self.where)


class ObjectMissingError(StoreError):
    """There is no object of that name."""


def is_remote(where: Path | str) -> bool:
    """True for the URL of an object store; a path, or ``file://``, is local."""
    text = place_text(where)
    return "://" in text and not text.startswith("file://")


def place_text(where: Path | str) -> str:
    """``where`` as text; a URL that went through ``Path`` has lost a slash and gets it back."""
    text = str(where)
    scheme, mark, rest = text.partition(":/")
    if isinstance(where, Path) and mark and scheme in (*REMOTE_SCHEMES, "file"):
        return f"{scheme}://{'/' if scheme == 'file' else ''}{rest.lstrip('/')}"
    return text


def locate(where: Path | str, *, bucket_itself: bool = False) -> Location:
    """The location that a path or a URL names.

    ``s3://bucket/folder``, ``gs://``, ``az://`` and ``memory://`` (this process only) need the
    extra ``remote``; ``file://`` is a path. Credentials, region and endpoint come from the
    environment (``AWS_*``, ``GOOGLE_*``, ``AZURE_*``).

    Args:
        bucket_itself: A URL may name a whole bucket (to read what lies there).

    Raises:
        ConfigError: Another scheme, a password in the URL, or no folder inside the bucket.
        MissingExtraError: The extra is not installed.
    """
    if not is_remote(where):
        from boxdepth.depthgen.store.local import LocalFolder

        text = place_text(where)
        return LocalFolder(
            where if isinstance(where, Path) and "://" not in text else _file_path(text)
        )
    url = place_text(where)
    _check_url(url, bucket_itself=bucket_itself)
    from boxdepth.depthgen.store.bucket import Bucket

    return Bucket(url.rstrip("/"))


def _file_path(where: str) -> Path:
    if not where.startswith("file://"):
        return Path(where).expanduser()
    parts = urlsplit(where)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"{where!a}: file:// takes an absolute path: file:///data/mine.zarr")
    return Path(unquote(parts.path))


def _check_url(url: str, *, bucket_itself: bool) -> None:
    try:
        parts = urlsplit(url)
        userinfo = parts.username is not None or parts.password is not None
    except ValueError as error:
        raise ConfigError(f"not a URL ({error})") from error
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if userinfo or parts.query or parts.fragment:
        raise ConfigError(
            f"{shown}: credentials and options do not belong into the URL; set them in the "
            "environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.scheme not in REMOTE_SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in ("s3", "gs", "az", "memory", "file"))
        raise ConfigError(f"{shown}: unknown scheme {parts.scheme!a}; known are {known}")
    inside = parts.path.strip("/")
    if not parts.netloc or not (inside or bucket_itself):
        raise ConfigError(f"{shown}: a folder in the bucket is expected, {parts.scheme}://NAME/X")
    if inside and any(part in ("", ".", "..") for part in inside.split("/")):
        raise ConfigError(f"{shown}: '.', '..' and empty folder names are not allowed")
