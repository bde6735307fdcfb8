"""The manners that the three command lines share (docs/commands.md).

The same file stands in each of the three packages (docs/adr/0003), and a test holds them equal.
"""

import errno
import functools
import inspect
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.logging import RichHandler

from .process import INTERRUPTED, TERMINATED, Terminated

BUG, USAGE, DATA, MISSING, ENVIRONMENT = 1, 2, 3, 5, 6

_TROUBLE = (
    "ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS",
    "EIO", "ESTALE", "EREMOTEIO", "EMFILE", "ENFILE", "ENOMEM",
    "ETIMEDOUT", "ENODEV", "ENXIO", "EBUSY", "ETXTBSY", "EHOSTDOWN",
    "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED",
)  # fmt: skip
_ENVIRONMENT_ERRORS = {getattr(errno, name, None) for name in _TROUBLE}
"""The machine's trouble, not the data's; not every system knows every one of them."""

Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Log more; show tracebacks.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")]

# typer's base of usage errors, wherever the installed version keeps it (click, or its own copy).
_ClickException: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

# Away from a terminal a table must not be cut to 80 columns.
console = Console(
    stderr=True,
    highlight=False,
    markup=False,
    emoji=False,
    width=None if sys.stderr.isatty() else 140,
)
"""For people: stderr; whatever stands in square brackets or between colons is text."""
logger = logging.getLogger("boxdepth")
python_warnings = logging.getLogger("py.warnings")
"""What libraries warn of, such as Pillow of a damaged TIFF: shown under ``-v`` only."""


class App(typer.Typer):
    """A command line: each subcommand takes ``-v`` and ``-q``, before its name and after it."""

    def __init__(self, name: str, *, about: str, distribution: str) -> None:
        super().__init__(
            name=name,
            help=about,
            no_args_is_help=True,
            rich_markup_mode="rich",
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )

        def show_version(wanted: bool) -> bool:
            if wanted:
                typer.echo(f"{name} {version(distribution)}")
                raise typer.Exit
            return wanted

        @self.callback()
        def _common(
            _version: Annotated[
                bool,
                typer.Option(
                    "--version", help="Print the version.", callback=show_version, is_eager=True
                ),
            ] = False,
            verbose: Verbose = False,
            quiet: Quiet = False,
        ) -> None:
            handler = RichHandler(console=console, show_time=False, show_path=False)
            logger.handlers = python_warnings.handlers = [handler]
            logging.captureWarnings(True)
            _set_loudness(verbose=False, quiet=False)
            _set_loudness(verbose=verbose, quiet=quiet)

    def command(  # type: ignore[override]  # the options are typer's own
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As typer's, and the subcommand takes ``-v`` and ``-q`` too."""
        register = super().command(name, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_loud_or_quiet(function))
            return function

        return decorate


def _loud_or_quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    added = {"_verbose": Verbose, "_quiet": Quiet}

    @functools.wraps(function)
    def wrapped(*, _verbose: bool = False, _quiet: bool = False, **arguments: Any) -> Any:
        _set_loudness(verbose=_verbose, quiet=_quiet)
        return function(**arguments)

    own = [
        p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()
    ]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in added.items()
    ]
    wrapped.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {**hints, **added}
    return wrapped


def _set_loudness(*, verbose: bool, quiet: bool) -> None:
    """Only ever add to what was asked for before the subcommand's name."""
    if verbose:
        logger.setLevel(logging.DEBUG)
        python_warnings.setLevel(logging.DEBUG)
    elif quiet:
        logger.setLevel(logging.ERROR)
        console.quiet = True
    elif not (is_verbose() or console.quiet):
        logger.setLevel(logging.WARNING)
        python_warnings.setLevel(logging.ERROR)


def is_verbose() -> bool:
    """Whether ``-v`` was given."""
    return logger.level == logging.DEBUG


def interactive() -> bool:
    """Whether a moving bar makes sense: a terminal, and nobody's log file."""
    return console.is_terminal and not os.environ.get("CI") and not console.quiet


def say(text: object = "", *, style: str | None = None) -> None:
    """Human text: to stderr, markup off, nothing cut."""
    console.print(text, markup=False, soft_wrap=True, style=style)


def warn(text: str) -> None:
    """One yellow line."""
    say(f"warning: {text}", style="yellow")


def emit(result: Mapping[str, Any]) -> None:
    """The machine's result: one line of JSON on stdout."""
    sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    sys.stdout.flush()


def run(app: typer.Typer, *, stopped: str = "", memory: str = "") -> int:
    """Run the application; every way it can end is one line and an exit code.

    Args:
        stopped: what to say after "interrupted" or "terminated" about what is kept.
        memory: the cure when memory runs out.
    """
    try:
        code = int(app(standalone_mode=False) or 0)
        sys.stdout.flush()
    except typer.Abort:
        code = INTERRUPTED
    except _ClickException as error:
        error.show()  # type: ignore[attr-defined]
        return int(error.exit_code)  # type: ignore[attr-defined]
    except BaseException as error:
        return _fail_by_kind(error, stopped=stopped, memory=memory)
    return fail(f"interrupted{stopped}", code) if code == INTERRUPTED else code


def _fail_by_kind(error: BaseException, *, stopped: str, memory: str) -> int:
    causes = list(_causes(error))
    # An interrupted import may come out as that import's error.
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return fail(f"interrupted{stopped}", INTERRUPTED)
    if any(isinstance(cause, Terminated) for cause in causes):
        return fail(f"terminated{stopped}", TERMINATED)
    if isinstance(error, SystemExit | GeneratorExit):
        raise error
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return fail(error, own)
    match error:
        case ImportError():
            return fail(_missing(error), MISSING)
        case MemoryError():
            return fail(f"out of memory{memory and f'; {memory}'}", ENVIRONMENT)
        case OSError():
            known = error.errno in _ENVIRONMENT_ERRORS
            return fail(os_words(error), ENVIRONMENT if known else DATA)
        case RecursionError():
            return fail("an input is nested too deeply to be read; is it the file you meant?", DATA)
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in names:  # torch's, which is not imported here
        return fail(f"out of accelerator memory{memory and f'; {memory}'}", ENVIRONMENT)
    if "ValidationError" in names:  # pydantic's
        return fail(error, USAGE)
    hint = "" if is_verbose() else " with the output of the same command under -v"
    report = f"This is a bug of ours: please report it{hint}."
    return fail(f"{type(error).__name__}: {error}. {report}", BUG)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )


def _missing(error: ImportError) -> str:
    text = str(error).rstrip(".")
    if "pip install" in text or not error.name:
        return text
    return f"{text}. Install what is missing, e.g. pip install {error.name.partition('.')[0]}"


def os_words(error: OSError) -> str:
    """An error of the system as a person reads it: which file, and what is the matter."""
    if error.errno is None or not error.strerror:
        return str(error)
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' -> '.join(files)}: {error.strerror}" if files else error.strerror


def fail(what: object, code: int) -> int:
    """Say what went wrong in one red line and return its exit code."""
    if is_verbose():
        traceback.print_exc()
    console.quiet = False
    console.print(f"error: {what}", style="red", markup=False, soft_wrap=True)
    return code
