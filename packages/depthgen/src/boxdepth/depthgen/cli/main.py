"""Runs the application and turns every way it can end into one line and an exit code."""

import errno
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import typer

from boxdepth.depthgen.cli import look, run, sample  # noqa: F401  (each registers its commands)
from boxdepth.depthgen.cli.app import app, console, is_verbose
from boxdepth.depthgen.store.errors import DepthgenError

BUG, DATA, MISSING, ENVIRONMENT = 1, 3, 5, 6
INTERRUPTED, TERMINATED = 130, 143
_STOPPED = "{}; what is finished stays, repeat the command to go on"
_ENVIRONMENT_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE,
}  # fmt: skip

# typer's base of usage errors, wherever the installed version keeps it (click, or its own copy).
_ClickException: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


class _Terminated(BaseException):
    """SIGTERM, raised where the work is so that files are closed on the way out."""


def main() -> NoReturn:
    """Entry point of ``depthgen``."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    sys.exit(_run())


def _run() -> int:
    try:
        code = int(app(standalone_mode=False) or 0)
        # typer swallows Ctrl-C and leaves its exit code.
        return _fail(_STOPPED.format("interrupted"), code) if code == INTERRUPTED else code
    except (typer.Abort, KeyboardInterrupt):
        return _fail(_STOPPED.format("interrupted"), INTERRUPTED)
    except _ClickException as error:
        error.show()  # type: ignore[attr-defined]
        return int(error.exit_code)  # type: ignore[attr-defined]
    except DepthgenError as error:
        return _fail(error, error.exit_code)
    except ImportError as error:
        return _fail(f"{error}. Install what is missing, e.g. pip install {error.name}", MISSING)
    except MemoryError:
        return _fail("out of memory; use a smaller --batch-size", ENVIRONMENT)
    except OSError as error:
        known = error.errno in _ENVIRONMENT_ERRORS
        return _fail(error, ENVIRONMENT if known else DATA)
    except _Terminated:
        return _fail(_STOPPED.format("terminated"), TERMINATED)
    except Exception as error:
        report = "This is a bug of ours: please report it with the output of the command under -v."
        return _fail(f"{type(error).__name__}: {error}. {report}", BUG)


def _fail(what: object, code: int) -> int:
    if is_verbose():
        traceback.print_exc()
    console.quiet = False
    console.print(f"error: {what}", style="red", markup=False, soft_wrap=True)
    return code


def _on_sigterm(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated
