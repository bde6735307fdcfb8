"""The error families of depthgen; each carries the exit code its command ends with."""

from collections.abc import Sequence


class DepthgenError(ValueError):
    """Something a person can cause and cure; the message names what, where and the cure."""

    exit_code = 2


class ConfigError(DepthgenError):
    """A command or a configuration that cannot be carried out."""

    exit_code = 2


class DataError(DepthgenError):
    """Input data that is not what it says it is."""

    exit_code = 3


class ImageError(DataError):
    """An image file that cannot be used."""


class StoreError(DataError):
    """A store that is unfinished, damaged, or not a store."""


class StoreMismatchError(DepthgenError):
    """A store that was started from other inputs than the ones given now."""

    exit_code = 2


class EnvironmentFailure(DepthgenError):
    """The machine is at fault: a full disk, too little memory, no network."""

    exit_code = 6


class StoreBusyError(DepthgenError):
    """Another process holds the store's lock."""

    exit_code = 75


def summarise(problems: Sequence[str], *, shown: int = 20) -> str:
    """Join collected problems to one text: the first ``shown`` of them, and how many more."""
    lines = [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more")
    return "\n".join(lines)
