"""One convention for the three command lines (docs/commands.md), tested on each of them."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import typer

COMMANDS = ("depthgen", "trainer", "evaluate")
QUICK = {
    "depthgen": ["models"],
    "trainer": ["presets"],
    "evaluate": ["ap", "--help"],
}
"""A subcommand of each that needs no input and prints something."""


@pytest.fixture(params=COMMANDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def conventions(name: str) -> ModuleType:
    return import_module(f"boxdepth.{name}.cli.conventions")


def line(name: str, *arguments: str) -> list[str]:
    code = f"from boxdepth.{name}.cli import main; main()"
    return [sys.executable, "-c", code, *arguments]


def test_the_shared_files_are_copies(repository: Path) -> None:
    for file in ("process.py", "conventions.py"):
        texts = {
            (repository / "packages" / p / "src" / "boxdepth" / p / "cli" / file).read_text("utf-8")
            for p in COMMANDS
        }
        assert len(texts) == 1, f"cli/{file} differs between the packages (docs/adr/0003)"


def test_nothing_heavy_is_imported_before_signals_are_handled(name: str) -> None:
    """Whatever comes before `prepare` would answer Ctrl-C with a traceback."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"import boxdepth.{name}.cli.process\n"
        "slow = {'numpy', 'torch', 'zarr', 'typer', 'rich', 'pydantic', 'typing', 'pathlib'}\n"
        "heavy = slow & (set(sys.modules) - before)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("number", "word"), [(2, "interrupted"), (15, "terminated")])
def test_a_signal_while_modules_are_imported_is_one_line(name: str, number: int, word: str) -> None:
    code = (
        "import sys, os, signal, time\n"
        f"from boxdepth.{name}.cli import process\n"
        "process.prepare()\n"
        f"os.kill(os.getpid(), {number})\n"
        "time.sleep(30)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, f"error: {word}\n")


def test_an_ignored_interrupt_stays_ignored(name: str) -> None:
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"from boxdepth.{name}.cli import process\n"
        "process.prepare()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "process.ready()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["typer", "rich.console", "json.decoder"])
def test_interrupted_while_the_command_imports_there_is_no_traceback(
    name: str, module: str
) -> None:
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"from boxdepth.{name}.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *QUICK[name]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_closed_streams_harm_nothing(name: str, tmp_path: Path) -> None:
    for closed in (">&-", "<&- >&- 2>&-"):
        script = f'exec "$@" {closed}'
        done = subprocess.run(
            ["bash", "-c", script, "bash", *line(name, *QUICK[name])],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, f"{closed}: {done.stderr}"


def test_a_reader_that_leaves_ends_nothing(name: str) -> None:
    script = 'set -o pipefail; "$@" | true'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *line(name, "--help")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_the_machines_trouble(name: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            line(name, "--help"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 6
    assert done.stderr == "error: No space left on device\n"


def test_cores_are_shared_unless_the_user_says_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = import_module(f"boxdepth.{name}.cli.process")
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    monkeypatch.setattr(process, "granted_cores", lambda: 3)
    for given, expected in (
        ((None, None, None), ("passive", "10000", "3")),
        (("active", None, "7"), ("active", None, "7")),
        (("passive", None, None), ("passive", None, "3")),
        ((None, "5", None), ("passive", "5", "3")),
    ):
        for key, value in zip(names, given, strict=True):
            monkeypatch.setenv(key, value or "")
            if value is None:
                monkeypatch.delenv(key)
        process.share_cores()
        assert tuple(os.environ.get(key) for key in names) == expected


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"quota": "400000\n", "period": "100000\n"}, 4),
        ({"quota": "-1\n", "period": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_control_group_is_read(
    files: dict[str, str], cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = import_module("boxdepth.depthgen.cli.process")
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    places = [(f"{tmp_path}/cpu.max",), (f"{tmp_path}/quota", f"{tmp_path}/period")]
    monkeypatch.setattr(process, "_quota_files", lambda: places)
    monkeypatch.setattr(process, "_affinity", lambda: 64)
    assert process.granted_cores() == cores


def test_loudness_is_taken_before_and_after_the_subcommand(
    name: str, conventions: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    app = conventions.App("tool", about="For a test.", distribution=f"boxdepth-{name}")

    @app.command("look")
    def _look(place: str, depth: int = 1) -> None:
        seen.append((conventions.is_verbose(), conventions.console.quiet))

    @app.command("other")
    def _other() -> None: ...

    lines = (
        (["look", "here"], (False, False)),
        (["-v", "look", "here"], (True, False)),
        (["look", "here", "-v"], (True, False)),
        (["look", "--verbose", "here", "--depth", "2"], (True, False)),
        (["-q", "look", "here"], (False, True)),
        (["look", "here", "--quiet"], (False, True)),
    )
    for arguments, expected in lines:
        monkeypatch.setattr(sys, "argv", ["tool", *arguments])
        conventions.console.quiet = False
        assert conventions.run(app) == 0
        assert seen.pop() == expected, arguments
    conventions.console.quiet = False


def test_warnings_of_libraries_are_shown_under_v_only(name: str) -> None:
    code = (
        "import sys, warnings\n"
        f"from boxdepth.{name}.cli import conventions\n"
        f"app = conventions.App('tool', about='x', distribution='boxdepth-{name}')\n"
        "app.command('go')(lambda: warnings.warn('of a library'))\n"
        "app.command('other')(lambda: None)\n"
        "sys.exit(conventions.run(app))"
    )
    for arguments, shown in ((["go"], False), (["go", "-v"], True), (["-v", "go"], True)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("of a library" in done.stderr) == shown, arguments


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def _raise(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def _chained(inner: BaseException) -> BaseException:
    outer = ImportError("cannot import name 'x'")
    outer.__cause__ = inner
    return outer


def _with_code(code: int) -> Exception:
    error = RuntimeError("said in words")
    error.exit_code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; kept"),
        (_chained(KeyboardInterrupt()), 130, "interrupted; kept"),
        (_with_code(4), 4, "said in words"),
        (_with_code(75), 75, "said in words"),
        (ImportError("No module named 'torch.x'", name="torch.x"), 5, "pip install torch"),
        (MemoryError(), 6, "out of memory; less"),
        (OutOfMemoryError("CUDA"), 6, "out of accelerator memory; less"),
        (OSError(errno.ENOSPC, "No space left on device", "a [b].json"), 6,
         "error: a [b].json: No space left on device"),
        (OSError(errno.EFBIG, "File too large", "a.json"), 6, "a.json: File too large"),
        (OSError(errno.ESTALE, "Stale file handle", "a.json"), 6, "a.json: Stale"),
        (OSError(errno.EIO, "Input/output error"), 6, "error: Input/output error"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "f/x"), 3, "f/x: Not a directory"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "f"), 3, "f: No such file"),
        (RecursionError("maximum"), 3, "nested too deeply"),
        (typer.BadParameter("not [so]"), 2, "not [so]"),
        (ValueError("[red]x"), 1, "ValueError: [red]x. This is a bug of ours"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)  # fmt: skip
def test_every_way_to_end_is_a_line_and_a_code(
    name: str, conventions: ModuleType, error: BaseException, code: int, words: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(_raise(error))
    monkeypatch.setattr(sys, "argv", ["tool"])
    assert conventions.run(app, stopped="; kept", memory="less") == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_sigterm_is_terminated(name: str, conventions: ModuleType, capsys, monkeypatch) -> None:
    terminated = import_module(f"boxdepth.{name}.cli.process").Terminated()
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(_raise(terminated))
    monkeypatch.setattr(sys, "argv", ["tool"])
    assert conventions.run(app, stopped="; kept") == 143
    assert "terminated; kept" in capsys.readouterr().err


def test_version_and_help_are_everywhere(name: str) -> None:
    for option, words in (("--version", f"{name} "), ("--help", "Usage: "), ("-h", "Usage: ")):
        done = subprocess.run(line(name, option), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


def test_the_page_names_every_exit_code(repository: Path, conventions: ModuleType) -> None:
    page = (repository / "docs" / "commands.md").read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert codes == {0, 1, 2, 3, 4, 5, 6, 75, 130, 143}
    ours = (conventions.BUG, conventions.USAGE, conventions.DATA, conventions.MISSING)
    assert {*ours, conventions.ENVIRONMENT} < codes
