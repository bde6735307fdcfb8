"""The command line: exit codes, JSON on stdout, words on stderr, nothing overwritten."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

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
    assert "COCO protocol, hotcoco " in err


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
    Path(files[0]).write_text(json.dumps([{**r, "image_id": r["image_id"] + 1} for r in results]))
    code, out, err = evaluate("check", *named(files), "--json")
    assert code == 3
    assert json.loads(out)["findings"][0]["ap_after"]["segm"] > 0
    assert "Likely mistake: image ids are one too large" in err


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


def test_measures_are_one_more_key(evaluate, files) -> None:
    code, out, err = evaluate("ap", *named(files), "--measures", "--per-class", "--json")
    measures = json.loads(out)["measures"]
    assert code == 0
    assert set(measures) == {
        "iou_type", "f1", "confusion", "calibration", "fragmentation", "slices"
    }  # fmt: skip
    assert measures["iou_type"] == "segm"
    assert measures["confusion"]["labels"][-1] == "background"
    assert f"{measures['f1']['overall']['f1']:.3f}" in err
    assert "expected calibration error" in err


def test_boxes_alone_are_measured_as_boxes(evaluate, files, tmp_path) -> None:
    boxes = [{k: v for k, v in r.items() if k != "segmentation"}
             for r in json.loads(Path(files[0]).read_text())]  # fmt: skip
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    code, out, _ = evaluate(
        "ap", "--predictions", str(tmp_path / "boxes.json"), "--annotations", files[1],
        "--measures", "--json",
    )  # fmt: skip
    measures = json.loads(out)["measures"]
    assert (code, measures["iou_type"], measures["fragmentation"]) == (0, "bbox", None)


def test_a_dense_scene_is_counted_to_the_last_object(evaluate, tmp_path) -> None:
    boxes = [[10 * (n % 15), 10 * (n // 15), 8, 8] for n in range(150)]
    truth = {
        "images": [{"id": 1, "height": 200, "width": 200}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": 64, "iscrowd": 0}
            for n, box in enumerate(boxes)
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "score": 1 - n / 1000, "bbox": box}
        for n, box in enumerate(boxes)
    ]
    paths = str(tmp_path / "predictions.json"), str(tmp_path / "annotations.json")
    for path, document in zip(paths, (results, truth), strict=True):
        Path(path).write_text(json.dumps(document))
    arguments = ["ap", *named(paths), "--iou-type", "bbox", "--measures", "--json"]
    report = json.loads(evaluate(*arguments)[1])
    assert report["bbox"]["ar_100"] == pytest.approx(100 / 150)
    overall = report["measures"]["f1"]["overall"]
    assert (overall["tp"], overall["fn"]) == (100, 50)
    assert "than the 100 detections that count (image 1: 150 of cell)" in str(report["warnings"])
    for option in (["--max-detections", "1, 10,100,300"], ["--max-detections=300"]):
        code, out, err = evaluate(*arguments, *option)
        assert code == 0, err
        report = json.loads(out)
        assert (report["bbox"]["ap"], report["bbox"]["ar_300"]) == pytest.approx((1.0, 1.0))
        overall = report["measures"]["f1"]["overall"]
        assert (overall["tp"], overall["fn"]) == (150, 0)
        assert not report["warnings"]
    assert evaluate(*arguments, "--max-detections", "ten")[0] == 2


@pytest.mark.parametrize("suffix", [".svg", ".csv", ".json"])
def test_the_confusion_matrix_comes_as_picture_table_and_json(
    suffix: str, evaluate, files, tmp_path
) -> None:
    target = tmp_path / f"matrix{suffix}"
    assert evaluate("ap", *named(files), "--confusion-matrix", str(target))[0] == 0
    text = target.read_text()
    assert "background" in text
    assert "class 1" in text
    if suffix == ".svg":
        ElementTree.fromstring(text)
    again, _, err = evaluate("ap", *named(files), "--confusion-matrix", str(target))
    assert (again, "exists already" in err) == (2, True)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_of_images_are_written(suffix: str, evaluate, files, tmp_path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    target = tmp_path / "new" / f"rows{suffix}"
    assert evaluate("ap", *named(files), "--per-image", str(target))[0] == 0
    assert target.stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--confusion-matrix", "m.png"], 2, "must end in .svg"),
        (["--per-image", "rows.xlsx"], 2, "must end in .csv or .parquet"),
        (["--measures", "--protocol", "lvis"], 2, "measures follow COCO's matching"),
        (["--measures", "--depth", "nowhere"], 3, "no depth maps"),
        (["--protocol", "lvis"], 3, "Is this an LVIS annotation file?"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(evaluate, files, arguments, code, words) -> None:
    ended, out, err = evaluate("ap", *named(files), *arguments)
    assert (ended, out) == (code, "")
    assert words in err
    assert "bug of ours" not in err


def test_parquet_without_its_extra_names_it(evaluate, files, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = evaluate("ap", *named(files), "--per-image", str(tmp_path / "rows.parquet"))
    assert code == 5
    assert "boxdepth-evaluate[parquet]" in err


def test_lvis_is_a_protocol_of_its_own(evaluate, files) -> None:
    document = json.loads(Path(files[1]).read_text())
    for category in document["categories"]:
        category["frequency"] = "f"
    for image in document["images"]:
        image["neg_category_ids"] = image["not_exhaustive_category_ids"] = []
    Path(files[1]).write_text(json.dumps(document))
    code, out, err = evaluate("ap", *named(files), "--protocol", "lvis", "--json", "--per-class")
    report = json.loads(out)
    assert code == 0
    assert report["protocol"] == "lvis"
    assert report["segm"]["ap_frequent"] == report["segm"]["ap"]
    assert report["segm"]["ap_rare"] is None
    assert "LVIS protocol" in err
    code, _, err = evaluate(
        "ap", *named(files), "--protocol", "lvis", "--iou-type", "bbox", "--fail-under", "1"
    )
    assert (code, "the gate is" in err) == (4, True)


def test_compare_tells_f1_and_calibration(evaluate, files) -> None:
    code, out, err = evaluate(
        "compare", files[0], files[0], "--annotations", files[1], "--bootstrap", "20", "--json"
    )
    first, second = json.loads(out)["files"]
    assert code == 0
    assert first["f1_difference"] is None
    assert second["f1_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert 0 < first["calibration_error"]["value"] < 1
    assert "best threshold" in err


STRANGE_NAMES = ["car [parked]", "x[/y]", "[red]a[/red]", ":car: [link=u]"]


@pytest.mark.parametrize(
    "command",
    [
        ["ap", "--measures", "--per-class"],
        ["ap", "--protocol", "lvis", "--per-class"],
        ["compare", "--per-class"],
        ["proxies", "--per-class"],
        ["check"],
    ],
    ids=" ".join,
)
def test_names_in_brackets_or_between_colons_are_text(
    command: list[str], evaluate, make_set: Callable[..., tuple], tmp_path: Path
) -> None:
    truth, results = make_set(3)
    lvis = "lvis" in command
    for category, name in zip(truth["categories"], STRANGE_NAMES, strict=True):
        category["name"] = name
        if lvis:
            category["frequency"] = "f"
    if lvis:
        for image in truth["images"]:
            image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    folder = tmp_path / "d [" / "old] :smile:"
    folder.mkdir(parents=True)
    documents = {"a [x].json": truth, "p [b].json": results, "q [b].json": results[:-2]}
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    paths = [str(folder / name) for name in documents]
    named_files = paths[1:] if command[0] == "compare" else ["--predictions", paths[1]]
    code, _, shown = evaluate(*command, *named_files, "--annotations", paths[0])
    assert code == 0, shown
    together = "".join(shown.split())  # a long name may be folded
    if command != ["check"]:
        for name in STRANGE_NAMES:
            assert "".join(name.split()) in together
    assert "\\[" not in shown
    code, _, shown = evaluate(*command, *named_files, "--annotations", f"{paths[0]}.gone")
    assert code == 3
    assert "d [/old] :smile:/a [x].json.gone: no such file" in " ".join(shown.split())
