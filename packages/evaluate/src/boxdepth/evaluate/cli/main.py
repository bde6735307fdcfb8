"""Runs the application and turns every way it can end into one line and an exit code."""

import errno
import signal
import sys
import traceback
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import NoReturn

import typer

from boxdepth.evaluate.cli import (  # noqa: F401  (each registers its subcommand)
    ap,
    check,
    compare,
    convert,
    proxies,
    report,
    review,
)
from boxdepth.evaluate.cli.app import app, console, is_verbose
from boxdepth.evaluate.results import EvaluateError

BUG, DATA, MISSING, ENVIRONMENT = 1, 3, 5, 6
_ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


# typer's base of usage errors, wherever the installed version keeps it (click, or its own copy).
_ClickException: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


class _Terminated(BaseException):
    """SIGTERM, raised where the work is so that files are closed on the way out."""


def main() -> NoReturn:
    """Entry point of `evaluate`."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    sys.exit(_run())


def _run() -> int:
    try:
        return int(app(standalone_mode=False) or 0)
    except typer.Abort:
        return 130
    except _ClickException as error:
        error.show()  # type: ignore[attr-defined]
        return int(error.exit_code)  # type: ignore[attr-defined]
    except EvaluateError as error:
        return _fail(error, error.exit_code)
    except ImportError as error:
        return _fail(f"{error}. Install what is missing, e.g. pip install {error.name}", MISSING)
    except BrokenProcessPool:
        return _fail("a worker process was killed, out of memory? Try --workers 1.", ENVIRONMENT)
    except MemoryError:
        return _fail("out of memory. Split the files, or run on a larger machine.", ENVIRONMENT)
    except OSError as error:
        known = error.errno in _ENVIRONMENT_ERRORS
        return _fail(f"{error}", ENVIRONMENT if known else DATA)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except _Terminated:
        return _fail("terminated", 143)
    except Exception as error:
        report = (
            "This is a bug of ours: please report it with the output of the same command under -v."
        )
        return _fail(f"{type(error).__name__}: {error}. {report}", BUG)


def _fail(what: object, code: int) -> int:
    if is_verbose():
        traceback.print_exc()
    console.quiet = False
    console.print(f"error: {what}", style="red", markup=False, soft_wrap=True)
    return code


def _on_sigterm(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated
