"""The code that README and docs show: Python runs, every command line is one the commands take."""

import importlib
import importlib.util
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from boxdepth.depthgen.datasets.coco import read_coco
from boxdepth.depthgen.datasets.sample import write_sample
from boxdepth.depthgen.datasets.sample.files import load_inverse_depth
from boxdepth.depthgen.store import write_store

REPOSITORY = Path(__file__).parents[1]
COMMANDS = ("depthgen", "trainer", "evaluate")
PAGES = [
    page
    for pattern in ("README.md", "docs/**/*.md", "packages/*/README.md")
    for page in sorted(REPOSITORY.glob(pattern))
    if page.name != "lab-log.md"  # dated: its commands are those of their day
]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
UNRUN = "python notest"
"""A block that needs what no test has: a large model, days. It is only compiled."""


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text("utf-8")) if kind in languages]


# What runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages assume it: photos, boxes, stores, a small run, results."""
    folder = tmp_path_factory.mktemp("pages")
    scenes = folder / "datasets" / "coco"
    write_sample(scenes, train=3, val=2, seed=1)
    for split in ("train", "val"):
        _with_a_person(scenes / "annotations" / f"instances_{split}2017.json")
        _write_store(scenes, split, folder / "store" / f"{split}.zarr")
        _link(folder / "stores" / f"coco-{split}2017.zarr", folder / "store" / f"{split}.zarr")
    _write_files(folder, scenes)
    options = ("--max-iterations", "2", "--set", "data.batch_size=2", "--set", "data.workers=0")
    where = ("--train", "store/train.zarr", "--out", "runs/mine")
    run_commands([("trainer", "fit", "scenes_tiny", *where, *options)], folder)
    _link(folder / "quickstart" / "run", folder / "runs" / "mine")
    _link(folder / "quickstart" / "scenes", scenes)
    return folder


def _with_a_person(annotations: Path) -> None:
    """The first class gets a name that people have; masks stay as they are."""
    document = json.loads(annotations.read_text())
    document["categories"][0]["name"] = "person"
    annotations.write_text(json.dumps(document))


def _write_store(scenes: Path, split: str, store: Path) -> None:
    dataset = read_coco(scenes, split=f"{split}2017", masks=True)
    depth = scenes / "depth" / f"{split}2017"
    files = [record.path for record in dataset.records if record.path is not None]
    store.parent.mkdir(exist_ok=True)
    write_store(
        store,
        dataset.records,
        images=[file.read_bytes() for file in files],
        depth=[load_inverse_depth(depth / f"{file.stem}.png") for file in files],
        categories=dataset.categories,
        masks=True,
    )


def _write_files(folder: Path, scenes: Path) -> None:
    truth = json.loads((scenes / "annotations" / "instances_val2017.json").read_text())
    results = [
        {key: row[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
        | {"score": 0.9}
        for row in truth["annotations"]
    ]
    boxes = [row | {"segmentation": []} for row in truth["annotations"]]
    documents = {
        "annotations": truth,
        "truth": truth,
        "boxes": truth | {"annotations": boxes},
        "predictions": results,
        "baseline": results[:-2],
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    _link(folder / "photos", scenes / "val2017")
    shutil.copy(next((scenes / "val2017").glob("*.jpg")), folder / "photo.jpg")


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


IN_TURN = """
import importlib, json, sys
for words in json.loads(sys.argv[1]):
    print("$", *words, file=sys.stderr, flush=True)
    sys.argv = words
    try:
        importlib.import_module(f"boxdepth.{words[0]}.cli").main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"ends with {end.code}")
"""


def run_commands(commands: list[tuple[str, ...]], folder: Path) -> None:
    """Run our commands one after the other, in one process: most of a short one is its start.

    Raises:
        AssertionError: one failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture
def folder(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workplace for one page alone, as the current folder."""
    own = tmp_path / "page"
    shutil.copytree(workplace, own, symlinks=True)
    monkeypatch.chdir(own)
    return own


PAGES_WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


def test_every_block_has_a_language_that_is_known() -> None:
    known = {"", "sh", "bash", "console", "python", UNRUN, "yaml", "json", "html"}
    assert {kind for page in PAGES for kind, _ in FENCE.findall(page.read_text("utf-8"))} <= known


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, UNRUN)], ids=name_of)
def test_python_that_is_not_run_compiles(page: Path) -> None:
    for code in blocks(page, UNRUN):
        compile(code, name_of(page), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=name_of)
def test_python_runs_from_top_to_bottom(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{name_of(page)}, block {number}", "exec"), names)


TOO_LONG = ("trainer fit ",)
"""What is only parsed: hours of training, from weights that are downloaded."""


@pytest.mark.slow
def test_the_readmes_commands_run_as_typed(folder: Path) -> None:
    (folder / "predictions.json").unlink()
    lines = [
        line.words
        for line in lines_of(REPOSITORY / "README.md")
        if line.words[0] in COMMANDS and not line.text.startswith(TOO_LONG)
    ]
    assert len(lines) > 5
    run_commands(lines, folder)


# What is parsed ------------------------------------------------------------------------------


TYPES = (int, float, Enum)
"""What a value is turned into here; texts and paths are taken as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A command as a page shows it."""

    page: Path
    text: str
    words: tuple[str, ...]


def lines_of(page: Path) -> Iterator[Line]:
    """The lines of shell blocks that begin with one of our programs."""
    for body in blocks(page, "sh", "bash", "console", ""):
        for text in body.replace("\\\n", " ").splitlines():
            words = _words(text.removeprefix("$ "))
            if words and (words[0] in COMMANDS or words[0].startswith("pipelines/")):
                yield Line(page=page, text=" ".join(words), words=words)


def _words(text: str) -> tuple[str, ...]:
    """A line's words from the program on; none where it is another program's, or a diagram."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return ()
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        words = words[1:]
    for start in (["python3", "-m", "uv", "run"], ["uv", "run"], ["python"]):
        if words[: len(start)] == start:
            words = words[len(start) :]
    if words[:1] == ["torchrun"] and "boxdepth.trainer.cli" in words:
        words = ["trainer", *words[words.index("boxdepth.trainer.cli") + 1 :]]
    return tuple(words)


@cache
def command_of(program: str) -> Any:
    """The command line of a program, as typer built it."""
    if program in COMMANDS:
        package = importlib.import_module(f"boxdepth.{program}.cli")
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):  # each adds its sub-commands to the application
                importlib.import_module(f"{package.__name__}.{module.name}")
        return typer.main.get_command(sys.modules[f"{package.__name__}.app"].app)
    path = REPOSITORY / program
    spec = importlib.util.spec_from_file_location(f"page_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None, f"no {program}"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    app = typer.Typer(add_completion=False)
    app.command()(module.main)
    return typer.main.get_command(app)


def complaint(words: tuple[str, ...]) -> str | None:
    """Why a program would not take its arguments; None if it does. Files need not exist."""
    command, arguments = command_of(words[0]), list(words[1:])
    while hasattr(command, "commands"):
        while arguments and arguments[0] in ("-q", "-v", "--quiet", "--verbose"):
            arguments.pop(0)
        if not arguments or arguments[0] not in command.commands:
            return None if arguments in ([], ["--help"], ["--version"]) else "no such sub-command"
        command = command.commands[arguments.pop(0)]
    context = command.context_class(command)
    try:
        options, rest, _ = command.make_parser(context).parse_args(list(arguments))
        for parameter in command.params:
            value = options.get(parameter.name)
            if parameter.required and not value:
                return f"{parameter.name} is missing"
            kind = parameter.type_descriptor.annotation
            if isinstance(value, str) and isinstance(kind, type) and issubclass(kind, TYPES):
                kind(value)
    except Exception as error:  # the parser's own, of a module that typer keeps to itself
        return str(error)
    return f"left over: {rest}" if rest else None


ALL_LINES = [line for page in PAGES for line in lines_of(page)]


@pytest.mark.parametrize("page", sorted({line.page for line in ALL_LINES}), ids=name_of)
def test_commands_are_as_the_programs_take_them(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "pipelines"))
    wrong = [
        f"{line.text}\n    {why}"
        for line in ALL_LINES
        if line.page == page and (why := complaint(line.words))
    ]
    assert wrong == [], "\n" + "\n".join(wrong)


def test_a_wrong_command_is_found() -> None:
    assert complaint(("depthgen", "info", "store.zarr")) is None
    assert complaint(("depthgen", "inform", "store.zarr")) is not None
    assert complaint(("depthgen", "info", "store.zarr", "--colour")) is not None
    assert complaint(("depthgen", "run", "--dataset", "cococo")) is not None
    assert complaint(("depthgen", "run", "--model", "auto")) is not None
    assert complaint(("trainer", "fit", "--seed", "one")) is not None


INLINE = re.compile(rf"`((?:{'|'.join(COMMANDS)}) [^`]+)`")


def options_of(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *getattr(parameter, "secondary_opts", ()))
    } | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_sentences_name_real_options(page: Path) -> None:
    wrong = []
    for text in INLINE.findall(page.read_text("utf-8").replace("\n", " ")):
        words = re.split(r"[\s,;|]+", re.sub(r"[\[\]()]", " ", text))
        command, rest = command_of(words[0]), words[1:]
        if hasattr(command, "commands") and rest and re.fullmatch(r"[a-z-]+", rest[0]):
            if rest[0] not in command.commands:
                wrong.append(text)
                continue
            command = command.commands[rest[0]]
        asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
        if asked - options_of(command):
            wrong.append(f"{text}: no {', '.join(asked - options_of(command))}")
    assert wrong == []
