"""SIGTERM and SIGINT: finish the step, save, stop. A second one stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final


@final
class StopFlag:
    """Set by the first signal; holds its number."""

    def __init__(self) -> None:
        self.number: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """First signal: remember it. Second: as if there were no handler."""
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Catch SIGTERM and SIGINT for the length of the block (main thread only).

    One that is ignored, as `nohup` and `&` of a script have it, stays ignored.
    """
    flag = StopFlag()
    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            before[number] = signal.signal(number, flag.handle)
    except ValueError:
        pass  # not the main thread: the embedding program handles its own signals
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
