"""What can go wrong, in five families; each has the exit code of a command that ends with it.

| family | code | |
| --- | --- | --- |
| ``UsageError`` | 2 | what was asked for can't be done |
| ``InputError`` | 3 | a file, weights or numbers that can't be used |
| ``MissingPackageError`` | 5 | a package that is not installed |
| ``MachineError`` | 6 | disk, network or memory |
| ``BusyError`` | 75 | somebody else is at work there |
| ``StoppedError`` | 128 + signal | told to stop; what was finished is kept |

Stores have their own family, ``boxdepth.depthgen.DepthgenError``, with the same codes.
"""

import signal
from collections.abc import Sequence

from boxdepth.trainer.words import counted


class TrainerError(Exception):
    """Base of all errors that a person can cause, or can do something about."""

    exit_code = 1


class UsageError(TrainerError, ValueError):
    """What was asked for can't be done."""

    exit_code = 2


class ConfigError(UsageError):
    """What was asked for cannot be a run."""


class RunExistsError(UsageError):
    """There is a run already, and nobody said to go on with it or to replace it."""


class RunFileError(UsageError):
    """A file of a run folder that somebody spoilt."""


class ImageTypeError(UsageError, TypeError):
    """An image in memory, or boxes, of a type or shape that can't be used."""


class InputError(TrainerError, ValueError):
    """A file, weights or numbers that can't be used."""

    exit_code = 3


class CheckpointError(InputError):
    """A checkpoint that is damaged, foreign or not there."""


class WeightsError(InputError):
    """A weights file that can't be read, or that doesn't fit."""


class NonFiniteError(InputError, ArithmeticError):
    """Too many steps in a row gave no finite loss or gradient."""


class PicturesError(InputError):
    """Some pictures can't be used; exit code 6 where the machine is at fault."""

    def __init__(self, bad: Sequence[tuple[str, Exception]], *, kept: str | None) -> None:
        one = len(bad) == 1
        lines = [str(why) if name in str(why) else f"{name}: {why}" for name, why in bad]
        more = len(lines) - 20
        shown = lines[:20] + ([f"... and {more} more"] if more > 0 else [])
        others = (
            f"; the predictions on the others are in {kept}" if kept else "; nothing was written"
        )
        super().__init__(
            f"{len(bad)} picture{'' if one else 's'} can't be used{others}:\n  "
            + "\n  ".join(shown)
        )
        if any(isinstance(why, OSError) for _, why in bad):
            self.exit_code = MachineError.exit_code


class MissingPackageError(TrainerError, ImportError):
    """A package that what was asked for needs, and that is not installed."""

    exit_code = 5


class MachineError(TrainerError, OSError):
    """Disk, network or memory."""

    exit_code = 6


class DownloadError(MachineError, ConnectionError):
    """Weights that are not on this machine and can't be fetched."""


class WriteError(MachineError):
    """A file that the machine won't take, named."""


class DiskFullError(WriteError):
    """The machine has no room for a checkpoint."""


class BusyError(TrainerError, RuntimeError):
    """Another process writes into the run folder."""

    exit_code = 75


class StoppedError(TrainerError):
    """A run was told to stop and has saved what it had."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} after step {step}, saved; --resume goes on"
        )
        self.exit_code = 128 + number
        self.step = step


class PredictionStoppedError(TrainerError):
    """Predicting was told to stop; what was finished is written."""

    def __init__(self, number: int, *, done: int, of: int, kept: str | None) -> None:
        where = f"their predictions are in {kept}" if kept else "nothing was written"
        super().__init__(
            f"stopped by {signal.Signals(number).name} after {done} of {counted(of, 'picture')}; "
            f"{where}"
        )
        self.exit_code = 128 + number
