"""The command line: exit codes, JSON on stdout, words on stderr, nothing overwritten."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boxdepth.evaluate.cli import inputs, main
from boxdepth.evaluate.results import UsageError


@pytest.fixture
def files(make_set: Callable[..., tuple], tmp_path: Path) -> tuple[str, str]:
    """Paths of predictions and annotations."""
    truth, results = make_set(3)
    paths = tmp_path / "predictions.json", tmp_path / "annotations.json"
    for path, document in zip(paths, (results, truth), strict=True):
        path.write_text(json.dumps(document))
    return str(paths[0]), str(paths[1])


@pytest.fixture
def evaluate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def named(files: tuple[str, str]) -> list[str]:
    return ["--predictions", files[0], "--annotations", files[1]]


def test_ap_prints_one_json_object_and_words_elsewhere(evaluate, files) -> None:
    code, out, err = evaluate("ap", *named(files), "--json")
    report = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert report["protocol"] == "coco"
    assert 0 <= report["segm"]["ap"] <= 1
    assert "COCO protocol, fast backend" in err


def test_without_json_stdout_is_empty(evaluate, files) -> None:
    assert evaluate("ap", *named(files))[:2] == (0, "")


def test_both_backends_print_the_same_numbers(evaluate, files) -> None:
    fast, plain = (
        json.loads(evaluate("ap", *named(files), "--backend", name, "--json")[1])
        for name in ("fast", "pycocotools")
    )
    assert fast["segm"]["ap"] == pytest.approx(plain["segm"]["ap"], abs=1e-9)


@pytest.mark.parametrize(("gate", "code"), [("0.0", 0), ("0.99", 4)])
def test_the_gate_decides_the_exit_code_after_the_result(evaluate, files, gate, code) -> None:
    ended, out, err = evaluate("ap", *named(files), "--fail-under", gate, "--json")
    assert ended == code
    assert json.loads(out)["segm"]["ap"] < 0.99
    assert ("the gate is 0.9900" in err) == (code == 4)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ap", "--no-such-option"], 2, "No such option"),
        (["ap", "--predictions", "x.json"], 2, "--predictions needs --annotations"),
        (["ap", "--run", "r", "--predictions", "x.json"], 2, "exclude each other"),
        (["ap", "--predictions", "x.json", "--annotations", "y.json"], 3, "y.json: no such file"),
        (["ap", "--fail-under", "40"], 2, "expected a fraction from 0 to 1"),
        (["ap"], 2, "there is no run with predictions"),
        (["compare", "a.json", "--annotations", "b.json"], 2, "two results files"),
        (["convert", "cityscapes-to-coco", "nowhere", "out.json"], 3, "_gtFine_instanceIds.png"),
    ],
)
def test_a_users_mistake_is_one_line_and_the_right_code(
    evaluate, tmp_path, monkeypatch, arguments, code, words
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, out, err = evaluate(*arguments)
    assert ended == code
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_nothing_is_overwritten_unasked(evaluate, files, tmp_path) -> None:
    out = tmp_path / "report.json"
    assert evaluate("ap", *named(files), "--out", str(out))[0] == 0
    first = out.read_text()
    code, _, err = evaluate("ap", *named(files), "--out", str(out))
    assert code == 2
    assert "Pass --overwrite" in err
    assert out.read_text() == first
    assert evaluate("ap", *named(files), "--out", str(out), "--overwrite")[0] == 0


def test_the_newest_run_is_the_default(evaluate, files, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("old", "new")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        os.link(files[0], run / "predictions.json") if name == "new" else (
            run / "predictions.json"
        ).write_text("[]")
        (run / "run.json").write_text(json.dumps({"val_annotations": files[1]}))
        os.utime(run / "predictions.json", (1000 + age, 1000 + age))
    code, out, _ = evaluate("ap", "--json")
    assert code == 0
    assert json.loads(out)["predictions"] > 0
    assert json.loads(evaluate("ap", "--run", "runs/old", "--json")[1])["predictions"] == 0


def test_a_run_that_names_no_annotations_asks_for_them(tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text("[]")
    with pytest.raises(UsageError, match="--annotations FILE"):
        inputs.find_inputs(tmp_path, None, None)
    (tmp_path / "run.json").write_text('{"val_annotations": null}')
    with pytest.raises(UsageError, match="val_annotations"):
        inputs.find_inputs(tmp_path, None, None)
    assert inputs.find_inputs(tmp_path, None, tmp_path / "a.json").annotations.name == "a.json"


def test_check_ends_with_3_when_something_is_to_mend(evaluate, files) -> None:
    code, out, _ = evaluate("check", *named(files), "--json")
    assert (code, json.loads(out)["sound"]) == (0, True)
    results = json.loads(Path(files[0]).read_text())
    Path(files[0]).write_text(json.dumps([{**r, "image_id": str(r["image_id"])} for r in results]))
    code, out, err = evaluate("check", *named(files), "--json")
    assert code == 3
    assert json.loads(out)["findings"][0]["ap_after"]["segm"] > 0
    assert "Likely mistake: image or category ids are strings" in err


def test_compare_gates_on_a_file_that_is_worse(evaluate, files, tmp_path) -> None:
    results = json.loads(Path(files[0]).read_text())
    worse = tmp_path / "worse.json"
    worse.write_text(json.dumps([]))
    arguments = ["--annotations", files[1], "--bootstrap", "50", "--iou-type", "bbox", "--json"]
    code, out, _ = evaluate("compare", files[0], str(worse), *arguments, "--fail-if-worse")
    assert code == 4
    assert json.loads(out)["files"][1]["worse"] is True
    assert evaluate("compare", str(worse), files[0], *arguments, "--fail-if-worse")[0] == 0
    assert results


def test_proxies_report_and_convert_run(evaluate, files, tmp_path) -> None:
    code, out, _ = evaluate("proxies", *named(files), "--json")
    assert code == 0
    assert json.loads(out)["protocol"] == "proxies"
    html = tmp_path / "report.html"
    code, out, _ = evaluate("report", *named(files), "--html", str(html), "--json")
    assert code == 0
    assert json.loads(out)["html"] == str(html)
    assert html.read_text().startswith("<!doctype html>")


def test_cityscapes_needs_its_annotations(evaluate, files, monkeypatch) -> None:
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)
    code, _, err = evaluate("ap", *named(files), "--protocol", "cityscapes")
    assert code == 2
    assert "pass --gt-fine" in err


@pytest.mark.data
def test_both_protocols_in_one_run_on_real_photos(evaluate, shared_data, tmp_path) -> None:
    gt_fine = shared_data / "cityscapes-dev" / "gtFine" / "val"
    annotations = tmp_path / "annotations.json"
    assert evaluate("convert", "cityscapes-to-coco", str(gt_fine), str(annotations))[0] == 0
    truth = json.loads(annotations.read_text())
    perfect = [{**a, "score": 0.9} for a in truth["annotations"] if not a["iscrowd"]]
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps(perfect))
    code, out, err = evaluate(
        "ap", "--protocol", "both", "--gt-fine", str(gt_fine), "--json",
        *named((str(predictions), str(annotations))),
    )  # fmt: skip
    report = json.loads(out)
    assert code == 0
    assert report["protocol"] == "both"
    assert report["segm"]["ap"] == pytest.approx(1.0)
    assert report["cityscapes"]["segm"]["ap"] == pytest.approx(1.0)
    assert "Cityscapes protocol (official)" in err


@pytest.mark.data
def test_real_annotations_are_read_without_a_complaint(evaluate, shared_data, tmp_path) -> None:
    annotations = shared_data / "coco-dev" / "annotations" / "instances_val2017.json"
    truth = json.loads(annotations.read_text())
    perfect = [{**a, "score": 0.5} for a in truth["annotations"] if not a["iscrowd"]]
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps(perfect))
    code, out, _ = evaluate("ap", *named((str(predictions), str(annotations))), "--json")
    assert code == 0
    assert json.loads(out)["segm"]["ap"] == pytest.approx(1.0)


def test_no_torch_comes_along() -> None:
    code = "import sys, boxdepth.evaluate.cli; print(sorted({'torch', 'zarr'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
