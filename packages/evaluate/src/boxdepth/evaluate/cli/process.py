"""What a command does to its process before anything heavy is imported.

Until `prepare` has run, Ctrl-C is answered with a traceback; so this module, and what is imported
before it, needs nothing but what Python itself has loaded by then (not even pathlib or typing).

The same file stands in each of the three packages (docs/adr/0003), and a test holds them equal.
"""

import errno
import io
import math
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn, TextIO

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
SPINS = "10000"
"""Looks of an idle libgomp thread before it sleeps, a tenth of a millisecond: longer than the gap
between two of torch's operations, much shorter than a neighbour's turn."""
_READER_IS_GONE = {errno.EPIPE, errno.EIO, errno.ESHUTDOWN, errno.ECONNRESET}


class Terminated(BaseException):
    """SIGTERM, raised where the work is so that files are closed on the way out."""


def prepare() -> None:
    """Make the process fit to start: streams that can be written to, cores shared, Ctrl-C quiet."""
    _open_closed_streams()
    _tolerate_closed_readers()
    share_cores()
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` and `&` of a script stay so
            signal.signal(number, _leave_at_once)


def ready() -> None:
    """Everything is imported: from here signals are raised where the work is."""
    if signal.getsignal(signal.SIGINT) is _leave_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _raise_terminated)


def share_cores() -> None:
    """Let idle OpenMP threads soon sleep and use no more of them than the container grants.

    Has an effect only before torch or another OpenMP library is loaded; what the user has set in
    the environment stands. Threads that spin for long cost up to 20 times on a machine with other
    work, threads that sleep at once a third of the speed on a quiet one (docs/lab-log.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # libgomp's own word for it, which wins
    granted = granted_cores()
    if granted is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def granted_cores() -> int | None:
    """The processor quota of this container in whole cores, or None where there is no quota."""
    for paths in _quota_files():
        try:
            words = " ".join(_text(path) for path in paths).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            return max(1, min(math.ceil(quota / period), _affinity()))
    return None


def _quota_files() -> list[tuple[str, ...]]:
    """Where control groups of version 2 and 1 keep the quota of this process, nearest first."""
    root = "/sys/fs/cgroup"
    try:
        lines = [line.split(":", 2) for line in _text("/proc/self/cgroup").splitlines()]
    except (OSError, ValueError):
        lines = []
    groups = {line[1]: line[2].strip("/") for line in lines if len(line) == 3}
    parts = groups.get("", "").split("/")
    above = ["/".join([root, *parts[:count]]) for count in range(len(parts), -1, -1)]
    name = next((name for name in groups if "cpu" in name.split(",")), "cpu")
    first = [f"{root}/{name}/{groups.get(name, '')}", f"{root}/{name}"]
    return [
        *((f"{folder}/cpu.max",) for folder in above),
        *((f"{folder}/cpu.cfs_quota_us", f"{folder}/cpu.cfs_period_us") for folder in first),
    ]


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  (without pathlib, see above)
        return file.read()


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _open_closed_streams() -> None:
    """Put the null device where cron or `>&-` left no stream, before a file takes its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _tolerate_closed_readers() -> None:
    """`| head` ends the reading, not the work; and no character is too rare for a terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # not a test's or a notebook's own
            setattr(sys, name, _tolerant(stream))


def _tolerant(stream: "TextIO") -> "TextIO":
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_TolerantFile(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


class _TolerantFile(io.FileIO):
    """A file whose output goes to the null device once it can't be written any more.

    A reader that left is no error; anything else, such as a full disk, is one, once: what is still
    buffered when the process exits must not raise it again.
    """

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if error.errno not in _READER_IS_GONE:
                raise
        return super().write(data)  # type: ignore[arg-type]


def _leave_at_once(number: int, _frame: "FrameType | None") -> "NoReturn":
    """While modules are imported there is nothing to keep and nothing to close."""
    os.write(2, f"error: {_WORDS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def _raise_terminated(_number: int, _frame: "FrameType | None") -> "NoReturn":
    raise Terminated
