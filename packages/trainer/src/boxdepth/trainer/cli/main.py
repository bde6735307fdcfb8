"""Runs the application and turns every way it can end into one line and an exit code."""

import errno
import os
import sys
import traceback
from typing import NoReturn

import torch
import typer
from pydantic import ValidationError

from boxdepth.trainer.cli import fit as _fit  # noqa: F401  (registers its subcommands)
from boxdepth.trainer.cli import inspect as _inspect  # noqa: F401
from boxdepth.trainer.cli import predict as _predict  # noqa: F401
from boxdepth.trainer.cli import weights as _weights  # noqa: F401
from boxdepth.trainer.cli.app import app, console, is_verbose
from boxdepth.trainer.engine.signals import StoppedError

BUG, USAGE, DATA, MISSING, ENVIRONMENT = 1, 2, 3, 5, 6
_ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}

# typer's base of usage errors, wherever the installed version keeps it (click, or its own copy).
_ClickException: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


def main() -> NoReturn:
    """Entry point of `trainer`."""
    sys.exit(_run())


def _run() -> int:
    if os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None):
        return _end("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets checkpoints run code; unset it", USAGE)
    try:
        return int(app(standalone_mode=False) or 0)
    except typer.Abort:
        return 130
    except _ClickException as error:
        error.show()  # type: ignore[attr-defined]
        return int(error.exit_code)  # type: ignore[attr-defined]
    except StoppedError as error:
        console.print(f"{error}; --resume goes on", style="yellow", markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        return _end("interrupted", 130)
    except torch.OutOfMemoryError:
        return _end(
            "out of GPU memory: lower data.batch_size or raise data.accumulate (--set), or use "
            "--set precision=bf16",
            ENVIRONMENT,
        )
    except MemoryError:
        return _end("out of memory: lower data.batch_size or data.workers (--set)", ENVIRONMENT)
    except Exception as error:
        return _end_by(error)


def _end_by(error: Exception) -> int:
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return _end(error, code)
    if isinstance(error, ValidationError):
        return _end(error, USAGE)
    if isinstance(error, ImportError):
        return _end(f"{error}; install what is missing: pip install {error.name}", MISSING)
    if isinstance(error, OSError):
        known = error.errno in _ENVIRONMENT_ERRORS
        return _end(error, ENVIRONMENT if known else DATA)
    traceback_hint = "" if is_verbose() else " with the output of the same command under -v"
    report = f"This is a bug of ours: please report it{traceback_hint}."
    return _end(f"{type(error).__name__}: {error}. {report}", BUG)


def _end(what: object, code: int) -> int:
    if is_verbose():
        traceback.print_exc()
    console.quiet = False
    console.print(f"error: {what}", style="red", markup=False, soft_wrap=True)
    return code
