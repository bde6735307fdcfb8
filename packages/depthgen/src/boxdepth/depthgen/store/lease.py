"""One writer a store where there is no ``flock``: an object that is created once and renewed."""

import threading
import time
import uuid
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol, final

from boxdepth.depthgen.store.errors import DepthgenError, StoreBusyError
from boxdepth.depthgen.store.lock import busy_message, describe_holder, is_alive, is_gone

LIFE_SECONDS: Final = 60.0
"""A lease that was not renewed for so long (by the object store's clock) is nobody's."""

_RENEWAL_SECONDS: Final = 15.0
_SETTLE_SECONDS: Final = 1.0


class LeasedStore(Protocol):
    """What a lease needs of an object store."""

    def create(self, name: str, data: bytes) -> str | None: ...
    def replace(self, name: str, data: bytes, *, tag: str) -> str | None: ...
    def state(self, name: str) -> tuple[bytes, str, datetime] | None: ...
    def server_time(self, name: str) -> datetime: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, names: list[str]) -> None: ...


@final
class Lease:
    """A lock object with a write id of its own; by conditional PUT, else by reading it back."""

    def __init__(self, store: LeasedStore, name: str) -> None:
        self._store = store
        self._name = name
        self._id = uuid.uuid4().hex
        self._content = f"{describe_holder()} {self._id}\n".encode()
        self._tag: str | None = None
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._renewing: threading.Thread | None = None

    def take(self) -> None:
        """Hold the lease, and renew it in a thread until it is given back.

        Raises:
            StoreBusyError: Somebody else holds it.
        """
        try:
            self._tag = self._store.create(self._name, self._content)
            if self._tag is None:
                self._tag = self._take_over()
        except NotImplementedError:
            self._take_by_reading_back()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()

    def check(self) -> None:
        """Called before something is made final.

        Raises:
            StoreBusyError: The lease was lost, and another writer may be at work.
        """
        if self._lost.is_set():
            raise StoreBusyError(
                f"{self._store}: the lock was not renewed in time and another writer has taken "
                "it; what is finished stays"
            )

    def give_back(self) -> None:
        """Stop renewing, and remove the lock object if it is still ours."""
        self._stop.set()
        if self._renewing is not None:
            self._renewing.join()
        # Where that fails the lease ends by itself; what was written is whole all the same.
        with suppress(DepthgenError):
            state = None if self._lost.is_set() else self._store.state(self._name)
            if state is not None and self._is_ours(state[0]):
                self._store.remove([self._name])

    def refuse_if_held(self) -> None:
        """Look, without taking it.

        Raises:
            StoreBusyError: Somebody else holds it.
        """
        state = self._store.state(self._name)
        if state is not None:
            self._refuse_living(state)

    def _take_over(self) -> str | None:
        """Take a lease that is there already: ours (a PUT that succeeded and said it failed), or
        a dead writer's."""
        for _ in range(3):
            state = self._store.state(self._name)
            if state is None:
                tag = self._store.create(self._name, self._content)
            elif self._is_ours(state[0]):
                return state[1]
            else:
                self._refuse_living(state)
                tag = self._store.replace(self._name, self._content, tag=state[1])
            if tag is not None:
                return tag
        raise StoreBusyError(busy_message(self._store, []))

    def _take_by_reading_back(self) -> None:
        """Without conditional writes: the last write id that stands there wins."""
        state = self._store.state(self._name)
        if state is not None:
            self._refuse_living(state)
        self._store.write(self._name, self._content)
        time.sleep(_SETTLE_SECONDS)
        state = self._store.state(self._name)
        if state is None or not self._is_ours(state[0]):
            raise StoreBusyError(busy_message(self._store, _holder(state[0] if state else b"")))

    def _refuse_living(self, state: tuple[bytes, str, datetime]) -> None:
        content, _, renewed = state
        holder = _holder(content)
        if is_alive(holder):
            raise StoreBusyError(busy_message(self._store, holder))
        if is_gone(holder):
            return
        now = self._store.server_time(f"{self._name}-clock-{self._id}")
        if (now - renewed).total_seconds() < LIFE_SECONDS:
            raise StoreBusyError(
                f"{busy_message(self._store, holder)}; if it is dead, its lock ends "
                f"{LIFE_SECONDS:.0f} s after its last sign of life"
            )

    def _is_ours(self, content: bytes) -> bool:
        return content.rstrip().endswith(self._id.encode())

    def _renew(self) -> None:
        while not self._stop.wait(_RENEWAL_SECONDS):
            try:
                self._renew_once()
            except DepthgenError:
                continue  # the network fails; the next look tells whether the lease is still ours

    def _renew_once(self) -> None:
        try:
            if self._tag is None:
                raise NotImplementedError
            tag = self._store.replace(self._name, self._content, tag=self._tag)
        except NotImplementedError:
            self._store.write(self._name, self._content)
            return
        if tag is None:
            state = self._store.state(self._name)
            if state is None or not self._is_ours(state[0]):
                self._lost.set()
                self._stop.set()
                return
            tag = state[1]
        self._tag = tag


def _holder(content: bytes) -> list[str]:
    """Host, process and time."""
    return content.decode(errors="replace").split()[:3]
