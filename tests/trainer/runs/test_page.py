"""Where a run's numbers and pictures go: the page, the table, the trackers."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxdepth.trainer.engine.log import MetricsWriter, read_metrics
from boxdepth.trainer.runs.page import Curve, chart
from boxdepth.trainer.runs.samples import chosen, kept


def every_second_step(**more: object) -> tuple[str, str]:
    """Checkpoints after every second step of six, and more of that section."""
    section = {"every": 2, "keep": 2, "log_every": 1, **more}
    return "--set", f"checkpoints={json.dumps(section)}"


class FakeWandb(ModuleType):
    """Remembers what it was told; as much of the package as is used."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.told: list[tuple[Any, ...]] = []
        self.Image = lambda pixels: ("image", pixels.shape)

    def init(self, **options: Any) -> "FakeWandb":
        self.told.append(("init", options["name"], options["resume"], options["config"]["name"]))
        return self

    def log(self, numbers: dict[str, Any], *, step: int) -> None:
        self.told.append(("log", step, numbers))

    def finish(self) -> None:
        self.told.append(("finish",))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_a_tracker_is_told_numbers_and_pictures(fit, wandb: FakeWandb) -> None:
    code, _, said = fit(*every_second_step(track=["wandb"]), "--out", "run")
    assert code == 0, said
    assert wandb.told[0] == ("init", "run", "allow", "scenes_tiny")
    assert wandb.told[-1] == ("finish",)
    logged = [row[1:] for row in wandb.told if row[0] == "log"]
    numbers = {step: row for step, row in logged if "total_loss" in row}
    for row in read_metrics(Path("run")):
        if "losses" in row:
            assert numbers[row["iteration"]]["total_loss"] == row["total_loss"]
            assert numbers[row["iteration"]]["losses/color"] == row["losses"]["color"]
    pictures = [row for _, row in logged if any(name.startswith("samples/") for name in row)]
    assert len(pictures) == 3  # six steps, a checkpoint after every second
    assert set(pictures[0]) == {"samples/1000", "samples/1002", "samples/1005"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_said_before_the_run(
    name: str, fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    code, _, said = fit(*every_second_step(track=[name]), "--out", "run")
    assert code == 5
    assert f"pip install {name}" in said
    assert not Path("run").exists()


def test_the_table_has_the_rows_of_the_lines(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, start=0, tensorboard=False)
    writer.write(1, {"losses/color": 0.5, "speed": 2.0})
    writer.write(2, {"losses/color": float("nan"), "speed": 3.0})
    writer.write(2, {"val/segm_ap": 0.25})
    writer.write(3, {"losses/color": 0.25, "speed": 4.0})
    writer.close()

    def table() -> list[dict[str, str]]:
        with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    rows = table()
    assert [row["iteration"] for row in rows] == ["1", "2", "2", "3"]
    assert [row["losses/color"] for row in rows] == ["0.5", "", "", "0.25"]
    assert [row["val/segm_ap"] for row in rows] == ["", "", "0.25", ""]
    MetricsWriter(tmp_path, start=2, tensorboard=False).close()  # resumed: step 3 comes again
    assert [row["iteration"] for row in table()] == ["1", "2", "2"]


def test_samples_are_spread_evenly() -> None:
    assert chosen(6, 3) == [0, 2, 5]
    assert chosen(2, 3) == [0, 1]
    assert chosen(9, 0) == []


def test_a_chart_goes_through_its_points() -> None:
    drawn = chart("a < b", [Curve(name="x & y", points=[(0, 1.0), (10, 3.0), (20, 2.0)])])
    assert "a &lt; b" in drawn
    assert "x &amp; y 2" in drawn
    [path] = re.findall(r'<path d="M([^"]+)" fill="none" stroke="#', drawn)
    points = [tuple(map(float, pair.split(","))) for pair in path.split("L")]
    across = [x for x, _ in points]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.2)
    down = [y for _, y in points]  # 0 is the bottom of the chart, 3 the top
    assert down[1] == pytest.approx(8)
    assert (down[0] - down[1]) == pytest.approx(2 * (down[2] - down[1]), abs=0.2)
    assert chart("nothing", [Curve(name="x", points=[])]) == ""


@pytest.fixture
def page(fit, trainer) -> Path:
    assert fit("--out", "run", *every_second_step(evaluate_every=3))[0] == 0
    code, out, said = trainer("summary", "run", "--html", "page.html", "--json")
    assert code == 0, said
    assert json.loads(out)["html"] == "page.html"
    return Path("page.html").resolve()


def test_the_page_holds_everything_and_needs_nothing(page: Path, trainer) -> None:
    text = page.read_text("utf-8")
    for heading in ("Health", "Curves", "Val split", "Masks of training boxes", "Worst", "Slowest"):
        assert f"<h2>{heading}" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "<script" not in text
    pictures = kept(Path("run"))
    assert {name: [step for step, _ in steps] for name, steps in pictures.items()} == {
        name: [2, 3, 4, 6] for name in ("1000", "1002", "1005")
    }
    pixels = np.asarray(Image.open(pictures["1000"][0][1]))
    assert max(pixels.shape) <= 480
    assert trainer("summary", "run", "--html", "page.html")[0] == 2  # nothing is overwritten
    Path("train.zarr").rename("gone.zarr")
    code, _, said = trainer("summary", "run", "--html", "page.html", "--overwrite")
    assert (code, "not where it was" in said) == (0, True)
    assert "<h2>Worst" not in page.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(width: int, page: Path, open_page: Callable[..., Any]) -> None:
    window = open_page(page, width, 900)
    assert window.execute_script("return document.documentElement.scrollWidth") <= width
    loaded = window.execute_script(
        "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    )
    assert loaded
    outside = window.execute_script(
        """return [...document.querySelectorAll('h1, h2, p, svg, .legend span, .grid img')].filter(
             e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.textContent)"""
    )
    assert outside == []
    assert not [line for line in window.get_log("browser") if line["level"] == "SEVERE"]
