"""A store in an object store (S3, Google Cloud Storage, Azure): the same protocol by PUT and GET.

A PUT is atomic for one object and nothing is for several: records and the manifest come last, as
in a folder. Every call is tried again where the network or the server fails.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar, final
from urllib.parse import urlsplit

from boxdepth.depthgen.store.errors import (
    ConfigError,
    EnvironmentFailure,
    MissingExtraError,
    StoreError,
)
from boxdepth.depthgen.store.lease import Lease
from boxdepth.depthgen.store.location import Location, ObjectMissingError
from boxdepth.depthgen.store.schema import CONTROL, LOCK

try:
    import obstore
    from obstore import exceptions
    from obstore.store import MemoryStore, from_url
except ImportError as problem:
    raise MissingExtraError(
        "URLs need obstore: pip install 'boxdepth-depthgen[remote]'"
    ) from problem

ATTEMPTS: Final = 6
"""Of one request, beside obstore's own; with the pauses below about six seconds."""

_PAUSE_SECONDS: Final = 0.1
_TIMEOUT: Final = "60s"
_AT_ONCE: Final = 16

_T = TypeVar("_T")
_memory: dict[str, MemoryStore] = {}


@final
class Bucket(Location):
    """Objects below a prefix of a bucket."""

    is_remote = True

    def __init__(self, url: str) -> None:
        self.where = url
        self._scheme = urlsplit(url).scheme
        self._client: Any = None
        self._pid = 0
        self._guard = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return Bucket, (str(self.where),)

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        if limit is not None and (found := self._head(name)["size"]) > limit:
            raise StoreError(f"{self}/{name}: {found} bytes, at most {limit} expected")
        return self._call(name, lambda store: bytes(obstore.get(store, name).bytes()))

    def read_range(self, name: str, *, start: int, nbytes: int) -> bytes:
        return self.read_ranges(name, [(start, nbytes)])[0]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, lengths = [start for start, _ in ranges], [nbytes for _, nbytes in ranges]

        def fetch(store: Any) -> list[bytes]:
            # Ranges with less than a megabyte between them become one request.
            got = obstore.get_ranges(store, name, starts=starts, lengths=lengths)
            parts = [bytes(part) for part in got]
            if [len(part) for part in parts] != lengths:
                raise _TruncatedError(f"{sum(map(len, parts))} of {sum(lengths)} bytes came")
            return parts

        return self._call(name, fetch)

    def read_all(self, names: Iterable[str], *, limit: int | None = None) -> Iterator[bytes]:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
            yield from pool.map(partial(self.read, limit=limit), names)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        folder = prefix.rpartition("/")[0] or None

        def collect(store: Any) -> dict[str, int]:
            pages = obstore.list(store, folder)
            return {item["path"]: item["size"] for page in pages for item in page}

        found = self._call(prefix, collect)
        return {name: nbytes for name, nbytes in found.items() if name.startswith(prefix)}

    def exists(self, name: str) -> bool:
        try:
            self._head(name)
        except ObjectMissingError:
            return False
        return True

    def is_empty(self) -> bool:
        return self._call("", lambda store: not any(page for page in obstore.list(store)))

    def write(self, name: str, data: bytes) -> None:
        # One PUT (up to 5 GB): a multipart upload that dies leaves parts behind.
        self._call(name, lambda store: obstore.put(store, name, data, use_multipart=False))

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(ObjectMissingError):
                self._call(name, partial(_delete, name))

    def prepare(self) -> None:
        if not self.is_empty() and not self.sizes(f"{CONTROL}/"):
            raise StoreError(
                f"{self}: not empty, and not a boxdepth store; name another place for the store"
            )

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        lease = Lease(self, LOCK)
        lease.take()
        try:
            yield lease.check
        finally:
            lease.give_back()

    def refuse_if_busy(self) -> None:
        Lease(self, LOCK).refuse_if_held()

    def free_bytes(self) -> int | None:
        return None

    # What a lease needs beside the above.

    def create(self, name: str, data: bytes) -> str | None:
        """Write an object only if there is none: its tag, or ``None`` if there was one.

        Raises:
            NotImplementedError: The object store knows no conditional writes.
        """
        return self._conditional(name, data, "create")

    def replace(self, name: str, data: bytes, *, tag: str) -> str | None:
        """Write an object only if it still has ``tag``: its new tag, or ``None``.

        Raises:
            NotImplementedError: The object store knows no conditional writes.
        """
        return self._conditional(name, data, {"e_tag": tag})

    def state(self, name: str) -> tuple[bytes, str, datetime] | None:
        """Content, tag and time (of the server's clock) of an object; ``None`` if there is none."""
        try:
            head = self._head(name)
            return self.read(name), str(head["e_tag"]), head["last_modified"]
        except ObjectMissingError:
            return None

    def server_time(self, name: str) -> datetime:
        """The object store's clock: the time of an object written and removed again."""
        self.write(name, b"")
        try:
            modified: datetime = self._head(name)["last_modified"]
            return modified
        finally:
            self.remove([name])

    def _conditional(self, name: str, data: bytes, mode: Any) -> str | None:
        def put(store: Any) -> str | None:
            try:
                result = obstore.put(store, name, data, mode=mode, use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return None
            except (exceptions.NotSupportedError, NotImplementedError) as error:
                raise NotImplementedError from error
            return str(result["e_tag"])

        return self._call(name, put)

    def _head(self, name: str) -> Any:
        return self._call(name, lambda store: obstore.head(store, name))

    def _call(self, name: str, action: Callable[[Any], _T]) -> _T:
        """Do something in the object store, with patience.

        Raises:
            ObjectMissingError: There is no object of that name.
            EnvironmentFailure: No permission, or the network or the server keeps failing.
        """
        store, where = self._open(), f"{self}/{name}" if name else str(self)
        for attempt in range(ATTEMPTS):
            try:
                return action(store)
            except (FileNotFoundError, exceptions.NotFoundError) as error:
                raise ObjectMissingError(
                    f"{where}: there is no such object; `depthgen verify` tells what else is not"
                ) from error
            except (
                PermissionError,
                exceptions.PermissionDeniedError,
                exceptions.UnauthenticatedError,
            ) as error:
                raise EnvironmentFailure(
                    f"{where}: access denied ({_first_line(error)}); check the credentials in the "
                    "environment"
                ) from error
            except (exceptions.BaseError, OSError, _TruncatedError) as error:
                if attempt + 1 == ATTEMPTS:
                    raise EnvironmentFailure(
                        f"{where}: {ATTEMPTS} attempts failed ({_first_line(error)}); check the "
                        "network and repeat the same command: what is finished stays"
                    ) from error
                time.sleep(_PAUSE_SECONDS * 2**attempt)
        raise AssertionError

    def _open(self) -> Any:
        with self._guard:
            if self._client is None:
                self._client, self._pid = self._connect(), os.getpid()
            elif self._pid != os.getpid():
                raise ConfigError(
                    f"{self}: opened before this process was forked, which the network client does "
                    "not survive; start workers with multiprocessing_context='spawn'"
                )
            return self._client

    def _connect(self) -> Any:
        url = str(self.where)
        if self._scheme == "memory":
            # One store a URL, for as long as the process lives.
            return _memory.setdefault(url, MemoryStore())
        # Plain HTTP only where the user's own environment asks for it (a server on this machine).
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
        options: Any = {"timeout": _TIMEOUT, "connect_timeout": "10s"}
        if endpoint.startswith("http://"):
            options["allow_http"] = True
        retries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
        try:
            return from_url(url, client_options=options, retry_config=retries)
        except (exceptions.BaseError, ValueError) as error:
            raise ConfigError(f"{self}: cannot be opened ({_first_line(error)})") from error


class _TruncatedError(Exception):
    """Less came than was asked for."""


def _delete(name: str, store: Any) -> None:
    obstore.delete(store, name)


def _first_line(error: BaseException) -> str:
    """What an error says, without the dump of the request that follows."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
