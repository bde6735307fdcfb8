"""Masks in other tools' formats: nothing lost, and read by those tools' own code."""

import csv
import json
import sys
import warnings
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from boxdepth.evaluate.cli import main
from boxdepth.evaluate.export import (
    Form,
    Options,
    Policy,
    Target,
    export_masks,
    read_source,
)
from boxdepth.evaluate.export.formats import cvat, label_studio
from boxdepth.evaluate.export.shapes import outline, overlap, rasterise, simplify, trace
from boxdepth.evaluate.export.source import split_of
from boxdepth.evaluate.results import DataError, UsageError

POLYGONS = [t for t in Target if t != Target.png]
MASKS = [Target.coco, Target.labelme, Target.cvat, Target.label_studio, Target.png]


def rle(mask: np.ndarray) -> dict[str, Any]:
    coded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode()}


def shape_zoo() -> dict[str, np.ndarray]:
    """Masks that converters are known to lose."""
    rows, columns = np.mgrid[:60, :80]
    disc = (rows - 30) ** 2 + (columns - 40) ** 2 < 400
    ring = disc & ~((rows - 30) ** 2 + (columns - 40) ** 2 < 150)
    pixel, corner, line, diagonal = (np.zeros((60, 80), dtype=bool) for _ in range(4))
    pixel[20, 30] = corner[59, 79] = True
    line[10, 5:70] = True
    diagonal[rows == columns] = True
    rng = np.random.default_rng(0)
    return {
        "disc": disc,
        "ring": ring,
        "island in a hole": ring | ((rows - 30) ** 2 + (columns - 40) ** 2 < 30),
        "one pixel": pixel,
        "one pixel in the corner": corner,
        "line": line,
        "diagonal": diagonal,
        "two parts": (columns < 10) | (columns > 70),
        "everything": np.ones((60, 80), dtype=bool),
        "frame": (rows < 3) | (rows > 56) | (columns < 3) | (columns > 76),
        "checkers": (rows // 7 + columns // 5) % 2 == 0,
        "noise": rng.random((60, 80)) < 0.5,
        "many holes": disc & ((rows % 6 > 1) | (columns % 6 > 1)),
    }


@pytest.mark.parametrize("name", shape_zoo())
@pytest.mark.parametrize("policy", [Policy.bridge, Policy.keep])
@pytest.mark.parametrize("with_holes", [False, True])
def test_without_tolerance_nothing_is_lost(name: str, policy: Policy, with_holes: bool) -> None:
    mask = shape_zoo()[name]
    drawn = outline(mask, policy=policy, tolerance=0.0, with_holes=with_holes)
    assert overlap(rasterise(drawn.parts, mask.shape), mask) == 1.0
    if policy == Policy.bridge and not with_holes:
        assert len(drawn.parts) == 1
        assert not drawn.parts[0].holes


@pytest.mark.parametrize("name", shape_zoo())
def test_with_a_tolerance_little_is_lost(name: str) -> None:
    mask = shape_zoo()[name]
    for tolerance in (0.5, 1.0, 5.0):
        drawn = outline(mask, policy=Policy.bridge, tolerance=tolerance, with_holes=False)
        assert overlap(rasterise(drawn.parts, mask.shape), mask) >= 0.99


@pytest.mark.parametrize("tolerance", [0.25, 0.5, 2.0])
@pytest.mark.parametrize("name", ["disc", "ring", "diagonal", "frame"])
def test_no_point_of_an_outline_moves_farther_than_the_tolerance(
    name: str, tolerance: float
) -> None:
    for part in trace(shape_zoo()[name]):
        before = shapely.LineString(part.outer)
        after = shapely.LineString(simplify(part, tolerance).outer)
        assert shapely.hausdorff_distance(before, after) <= tolerance + 1e-9
        assert len(after.coords) <= len(before.coords)


def test_an_outline_runs_between_the_centres_of_pixels() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:5, 3:7] = True
    (part,) = trace(mask)
    assert part.outer.min(axis=0).tolist() == [3.0, 2.0]
    assert part.outer.max(axis=0).tolist() == [7.0, 5.0]
    polygon = shapely.Polygon(part.outer)
    for y, x in np.ndindex(9, 9):
        assert polygon.contains(shapely.Point(x + 0.5, y + 0.5)) == mask[y, x]


def test_each_policy_does_what_it_says() -> None:
    zoo = shape_zoo()
    two = zoo["ring"] | ((np.mgrid[:60, :80][1] > 70) & (np.mgrid[:60, :80][0] > 50))
    expected = {
        Policy.bridge: (1, two, "1 hole cut in, 2 parts joined"),
        Policy.keep: (2, two, "1 hole cut in"),
        Policy.largest: (1, zoo["disc"], "1 of 2 parts dropped, 1 hole filled"),
    }
    for policy, (parts, mask, note) in expected.items():
        drawn = outline(two, policy=policy, tolerance=0.0, with_holes=False)
        assert (len(drawn.parts), drawn.note) == (parts, note)
        assert overlap(rasterise(drawn.parts, two.shape), mask) == 1.0


# --- formats -------------------------------------------------------------------------------------


def zoo_document() -> dict[str, Any]:
    """Three images of two splits with every odd mask, a crowd, a box alone and a polygon."""
    names = ["train/äpfel [1].jpg", "train/b.jpg", "val/c.png"]
    images = [
        {"id": 10 * k + 3, "file_name": n, "height": 60, "width": 80, "license": k}
        for k, n in enumerate(names)
    ]
    annotations = []
    for place, mask in enumerate(shape_zoo().values()):
        y, x = (np.flatnonzero(mask.any(axis=k)) for k in (1, 0))
        annotations.append({
            "id": 100 + 7 * place, "image_id": images[place % 2 * 2]["id"],
            "category_id": (5, 9)[place % 2], "segmentation": rle(mask), "iscrowd": 0,
            "bbox": [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)],
            "area": int(mask.sum()), "note": f"mine {place}",
        })  # fmt: skip
    extra = [
        {"id": 900, "segmentation": rle(shape_zoo()["noise"]), "iscrowd": 1},
        {"id": 901, "segmentation": [], "iscrowd": 0},
        {"id": 902, "segmentation": [[10, 10, 50.25, 12, 40, 40.5]], "iscrowd": 0},
    ]
    common = {"image_id": 3, "category_id": 5, "bbox": [0, 0, 50, 50], "area": 700}
    annotations += [{**common, **record} for record in extra]
    categories = [{"id": 9, "name": "<b> & 'c'"}, {"id": 5, "name": "käse [red]"}]
    return {"info": {"year": 2026}, "images": images, "annotations": annotations,
            "categories": categories}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The document above as a file, with its images in `photos`."""
    document = zoo_document()
    for image in document["images"]:
        path = tmp_path / "photos" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60)).save(path)
    path = tmp_path / "masks.json"
    path.write_text(json.dumps(document))
    return path


def truth_masks(source: Path) -> dict[int, np.ndarray]:
    coco = COCO()
    coco.dataset = json.loads(source.read_text())
    coco.createIndex()
    return {i: coco.annToMask(a).astype(bool) for i, a in coco.anns.items() if a["segmentation"]}


@pytest.mark.parametrize("target", MASKS)
def test_masks_come_through_exactly(target: Target, source: Path, tmp_path: Path) -> None:
    report = export_masks(
        read_source(source), target, tmp_path / "out", Options(form=Form.mask)
    )  # fmt: skip
    assert set(report.written.values()) == {1.0}
    assert len(report.written) + len(report.left_out) == 16
    assert report.policy is None


@pytest.mark.parametrize("target", POLYGONS)
def test_polygons_come_through_nearly(target: Target, source: Path, tmp_path: Path) -> None:
    report = export_masks(
        read_source(source), target, tmp_path / "out", Options(form=Form.polygon)
    )  # fmt: skip
    assert report.median >= 0.99
    assert report.worst["iou"] >= 0.98
    assert len(report.written) + len(report.left_out) == 16
    assert report.left_out[901] == "no mask, a box alone"
    exact = export_masks(
        read_source(source), target, tmp_path / "exact", Options(form=Form.polygon, tolerance=0)
    )
    assert min(exact.written.values()) == 1.0


@pytest.mark.parametrize("target", Target)
def test_every_object_stands_in_the_list(target: Target, source: Path, tmp_path: Path) -> None:
    report = export_masks(read_source(source), target, tmp_path / "out")
    with (tmp_path / "out" / "objects.csv").open(encoding="utf-8") as file:
        rows = {int(row["annotation_id"]): row for row in csv.DictReader(file)}
    assert set(rows) == {a["id"] for a in zoo_document()["annotations"]}
    for identifier, row in rows.items():
        if identifier in report.written:
            assert (tmp_path / "out" / row["file"]).is_file()
            assert float(row["iou"]) == pytest.approx(report.written[identifier], abs=1e-6)
        else:
            assert row["iou"] == ""
            assert row["note"] == report.left_out[identifier]


def test_coco_keeps_every_key_and_pycocotools_reads_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_masks(read_source(source), Target.coco, out, Options(images=tmp_path / "photos"))
    before, masks = zoo_document(), truth_masks(source)
    seen = set()
    for split, names in (("train", ["äpfel [1].jpg", "b.jpg"]), ("valid", ["c.png"])):
        coco = COCO(str(out / split / "_annotations.coco.json"))
        assert coco.dataset["info"] == before["info"]
        assert coco.dataset["categories"] == sorted(before["categories"], key=lambda c: c["id"])
        assert [image["file_name"] for image in coco.dataset["images"]] == names
        assert all((out / split / name).is_file() for name in names)
        for identifier, annotation in coco.anns.items():
            seen.add(identifier)
            own = next(a for a in before["annotations"] if a["id"] == identifier)
            for key in ("note", "iscrowd", "image_id", "category_id", "bbox"):
                assert annotation.get(key) == own.get(key)
            if identifier in masks:
                assert (coco.annToMask(annotation) == masks[identifier]).all()
    assert seen == {a["id"] for a in before["annotations"]}


def test_yolo_labels_are_what_ultralytics_reads(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = export_masks(
        read_source(source), Target.yolo_seg, out, Options(images=tmp_path / "photos", tolerance=0)
    )
    masks = truth_masks(source)
    by_image: dict[str, list[int]] = {}
    for annotation in zoo_document()["annotations"]:
        if annotation["id"] in report.written:
            names = {3: "train/labels/äpfel [1]", 23: "valid/labels/c"}
            by_image.setdefault(names[annotation["image_id"]], []).append(annotation["id"])
    for name, ids in by_image.items():
        lines = (out / f"{name}.txt").read_text("utf-8").splitlines()
        assert len(lines) == len(ids)
        for line, identifier in zip(lines, sorted(ids), strict=True):
            number, *values = line.split()
            own = next(a for a in zoo_document()["annotations"] if a["id"] == identifier)
            assert int(number) == {5: 0, 9: 1}[own["category_id"]]
            points = np.array(values, dtype=float).reshape(-1, 2)
            assert points.min() >= 0
            assert points.max() <= 1
            pixels = (points * (80, 60)).round(4)
            coded = mask_api.frPyObjects([pixels.reshape(-1).tolist()], 60, 80)
            assert (mask_api.decode(coded[0]) == masks[identifier]).all()
    assert (out / "train/labels/b.txt").read_text() == ""  # an image without objects
    # Ultralytics finds labels by putting /labels/ for the last /images/
    for picture in out.glob("*/images/*"):
        head, tail = str(picture).rsplit("/images/", 1)
        assert Path(f"{head}/labels/{tail.rsplit('.', 1)[0]}.txt").is_file()
    yaml = pytest.importorskip("yaml").safe_load((out / "data.yaml").read_text("utf-8"))
    assert yaml["names"] == {0: "käse [red]", 1: "<b> & 'c'"}
    assert (yaml["train"], yaml["val"], yaml["nc"]) == ("train/images", "valid/images", 2)


@pytest.mark.parametrize("form", Form)
def test_label_studio_tasks_are_valid_to_its_own_sdk(
    form: Form, source: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's own, of pydantic 1
        from label_studio_sdk.converter.brush import decode_rle
        from label_studio_sdk.label_interface import LabelInterface
    out = tmp_path / "out"
    export_masks(read_source(source), Target.label_studio, out, Options(form=form, tolerance=0))
    interface = LabelInterface((out / "label_config.xml").read_text("utf-8"))
    interface.validate()
    tasks = json.loads((out / "tasks.json").read_text("utf-8"))
    masks = truth_masks(source)
    count = 0
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        for annotation in task["annotations"]:
            assert interface.validate_annotation(annotation)
            for region in annotation["result"]:
                count += 1
                mask = masks[int(region["id"].removeprefix("annotation-"))]
                if form == Form.mask:
                    flat = decode_rle(region["value"]["rle"]).reshape(60, 80, 4)
                    assert (flat == 255 * mask[..., None]).all()
                else:
                    points = np.array(region["value"]["points"])
                    assert points.min() >= 0
                    assert points.max() <= 100
    assert count == 14


@pytest.mark.parametrize("seed", range(4))
def test_brush_run_lengths_are_the_sdks(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from label_studio_sdk.converter.brush import decode_rle, mask2rle
    rng = np.random.default_rng(seed)
    mask = rng.random((17, 23)) < rng.random()
    mask[5:9] = seed % 2 == 0
    runs = label_studio.encode(mask)
    assert (decode_rle(runs).reshape(17, 23, 4)[..., 3] == 255 * mask).all()
    theirs = mask2rle(255 * mask.astype(np.uint8))
    assert (label_studio.decode(theirs, 17, 23) == mask).all()
    long = np.zeros((300, 400), dtype=bool)  # a run longer than 2 ** 16 values
    assert not decode_rle(label_studio.encode(long)).any()


def test_polygons_for_cvat_are_what_another_reader_sees(source: Path, tmp_path: Path) -> None:
    """hotcoco's reader of "CVAT for images 1.1", which knows polygons alone (and no entities)."""
    from hotcoco import COCO as Other

    items, out = read_source(source), tmp_path / "out"
    report = export_masks(items, Target.cvat, out, Options(form=Form.polygon))
    found = Other.from_cvat(str(out / "annotations.xml"))
    names = {number: unescape(image["file_name"]) for number, image in found.imgs.items()}
    rows = {int(record["id"]): row for row, record in enumerate(items.records)}
    theirs: dict[str, list[dict]] = {}
    for annotation in found.anns.values():
        theirs.setdefault(names[annotation["image_id"]], []).append(annotation)
    kinds = {number: unescape(category["name"]) for number, category in found.cats.items()}
    for number, iou in report.written.items():
        row = rows[number]
        image = items.images[int(items.image_index[row])]
        annotation = theirs[image["file_name"]].pop(0)
        category = items.categories[int(items.category_index[row])]
        assert kinds[annotation["category_id"]] == category["name"]
        ours, seen = items.masks.rle(row), found.ann_to_rle(annotation)
        assert mask_api.iou([seen], [ours], [0])[0, 0] == pytest.approx(iou, abs=1e-9)
    assert not any(theirs.values())


@pytest.mark.parametrize("form", Form)
def test_cvat_files_have_what_its_importer_looks_for(
    form: Form, source: Path, tmp_path: Path
) -> None:
    """As in CVAT's documentation of "CVAT for images 1.1"."""
    out = tmp_path / "out"
    options = Options(form=form, policy=Policy.keep if form == Form.polygon else None)
    export_masks(read_source(source), Target.cvat, out, options)
    root = ElementTree.parse(out / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    labels = [label.text for label in root.iterfind("meta/task/labels/label/name")]
    assert labels == ["käse [red]", "<b> & 'c'"]
    images = root.findall("image")
    assert [i.get("name") for i in images] == [i["file_name"] for i in zoo_document()["images"]]
    for image in images:
        assert (image.get("width"), image.get("height")) == ("80", "60")
        for shape in image:
            assert shape.get("label") in labels
            assert shape.get("occluded") == "0"
            if form == Form.mask:
                box = [int(shape.get(k)) for k in ("left", "top", "width", "height")]
                runs = [int(run) for run in shape.get("rle").split(",")]
                assert sum(runs) == box[2] * box[3]
                assert all(run > 0 for run in runs[1:])
            else:
                points = [pair.split(",") for pair in shape.get("points").split(";")]
                assert len(points) >= 3
                assert all(0 <= float(x) <= 80 and 0 <= float(y) <= 60 for x, y in points)


@pytest.mark.parametrize("seed", range(5))
def test_runs_along_rows_are_those_of_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 7)) < 0.5
    runs, value, length = [], False, 0
    for pixel in mask.reshape(-1).tolist():
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    assert cvat.row_runs(mask) == [*runs, length]


def test_labelme_files_open_beside_their_images(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = Options(images=tmp_path / "photos", policy=Policy.keep)
    export_masks(read_source(source), Target.labelme, out, options)
    document = json.loads((out / "train/äpfel [1].json").read_text("utf-8"))
    picture = (out / "train" / document["imagePath"]).resolve()
    assert picture == (tmp_path / "photos/train/äpfel [1].jpg").resolve()
    groups = {}
    for shape in document["shapes"]:
        assert set(shape) == {
            "label", "points", "group_id", "description", "shape_type", "flags", "mask"
        }  # fmt: skip
        groups.setdefault(shape["description"], []).append(shape["group_id"])
    for description, ids in groups.items():
        wanted = int(description.removeprefix("annotation "))
        assert ids == ([None] if len(ids) == 1 else [wanted] * len(ids))


def test_geojson_has_holes_and_valid_polygons(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_masks(read_source(source), Target.geojson, out, Options(tolerance=0))
    masks, holes = truth_masks(source), 0
    for file in sorted(out.rglob("*.geojson")):
        for feature in json.loads(file.read_text("utf-8"))["features"]:
            geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
            mask = masks[feature["properties"]["annotation_id"]]
            polygons = getattr(geometry, "geoms", [geometry])
            holes += sum(len(polygon.interiors) for polygon in polygons)
            rows, columns = np.indices(mask.shape)
            inside = shapely.contains_xy(geometry, columns + 0.5, rows + 0.5)
            if feature["id"] != "902":  # the user's own triangle has its own points
                assert (inside == mask).all()
    assert holes > 10


def test_overlapping_objects_share_no_pixel_of_an_instance_map(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_masks(read_source(source), Target.png, out)
    with Image.open(out / "val/c.png") as picture:
        assert picture.mode == "I;16"
    assert (out / "val/c.2.png").is_file()
    with Image.open(out / "train/b.png") as picture:
        assert not np.asarray(picture).any()


# --- input ---------------------------------------------------------------------------------------


def results_for(document: dict[str, Any], ids: list[int]) -> list[dict[str, Any]]:
    by_id = {a["id"]: a for a in document["annotations"]}
    square = np.zeros((60, 80), dtype=bool)
    square[5:20, 5:30] = True
    return [
        {"id": i, "image_id": by_id[i]["image_id"], "category_id": by_id[i]["category_id"],
         "score": 0.75, "quality": 0.5, "segmentation": rle(square)}
        for i in ids
    ]  # fmt: skip


def test_results_fill_the_boxes_they_name_and_touch_no_mask(source: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(results_for(zoo_document(), [901, 902, 100])))
    items = read_source(results, annotations=source)
    assert len(items) == 16
    row = items.ids.tolist().index(901)
    assert items.masks.areas[row] == 15 * 25
    assert items.records[row]["quality"] == 0.5
    for kept, mask in truth_masks(source).items():
        assert (items.masks.pixels(items.ids.tolist().index(kept)) == mask).all()


def test_results_without_ids_are_objects_of_their_own(source: Path, tmp_path: Path) -> None:
    results = [{k: v for k, v in r.items() if k != "id"}
               for r in results_for(zoo_document(), [901, 100])]  # fmt: skip
    results[0]["score"] = 0.1
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    items = read_source(path, annotations=source, least_score=0.5)
    assert items.ids.tolist() == [903]
    assert items.image_names == tuple(i["file_name"] for i in zoo_document()["images"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rs: rs[0].update(id=12345), "id 12345 is no annotation of"),
        (lambda rs: rs[1].update(id=rs[0]["id"]), "carry the id of another result"),
        (lambda rs: rs[0].pop("id"), "results have no id, others have one"),
    ],
)
def test_results_that_name_nothing_are_refused(
    change: Callable, words: str, source: Path, tmp_path: Path
) -> None:
    results = results_for(zoo_document(), [901, 902])
    change(results)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=words):
        read_source(path, annotations=source)


@pytest.mark.parametrize(
    ("image", "split"),
    [
        ({"file_name": "a.jpg"}, "train"),
        ({"file_name": "val2017/a.jpg"}, "valid"),
        ({"file_name": "images/test/x/a.jpg"}, "test"),
        ({"file_name": "test/a.jpg", "split": "val"}, "valid"),
        ({"file_name": "a.jpg", "split": "holdout"}, "holdout"),
        ({"file_name": "train.jpg", "split": 3}, "train"),
    ],
)
def test_splits_are_the_users(image: dict[str, Any], split: str) -> None:
    assert split_of(image) == split


def test_images_of_equal_stem_keep_labels_of_their_own(source: Path, tmp_path: Path) -> None:
    document = zoo_document()
    document["images"][1]["file_name"] = "train/äpfel [1].png"
    source.write_text(json.dumps(document))
    for target in (Target.yolo_seg, Target.labelme, Target.png, Target.geojson):
        report = export_masks(read_source(source), target, tmp_path / target.value)
        assert min(report.written.values()) > 0.98
        files = list((tmp_path / target.value).rglob("*äpfel*"))
        assert {f.name.split(".")[0] for f in files} == {"äpfel [1]_jpg", "äpfel [1]_png"}


def test_roboflows_root_category_takes_no_class_number(source: Path, tmp_path: Path) -> None:
    document = zoo_document()
    for category in document["categories"]:
        category["supercategory"] = "things"
    document["categories"].append({"id": 0, "name": "things", "supercategory": "none"})
    source.write_text(json.dumps(document))
    export_masks(read_source(source), Target.yolo_seg, tmp_path / "out")
    assert '0: "käse [red]"' in (tmp_path / "out/data.yaml").read_text("utf-8")


def test_a_split_joins_those_that_are_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_masks(read_source(source, split="train"), Target.yolo_seg, out)
    assert "says nothing about new images" in (out / "data.yaml").read_text()
    with pytest.raises(UsageError, match="holds train already"):
        export_masks(read_source(source, split="train"), Target.yolo_seg, out)
    export_masks(read_source(source, split="valid"), Target.yolo_seg, out)
    assert "val: valid/images" in (out / "data.yaml").read_text()
    assert "train: train/images" in (out / "data.yaml").read_text()


# --- command -------------------------------------------------------------------------------------


@pytest.fixture
def convert(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`evaluate convert` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.parametrize("target", Target)
def test_the_command_tells_what_came_through(
    target: Target, convert, source: Path, tmp_path: Path
) -> None:
    code, out, err = convert(
        source, "--to", target.value, "--images", tmp_path / "photos", "--out", tmp_path / "out",
        "--json",
    )  # fmt: skip
    report = json.loads(out)
    assert code == 0
    assert report["round_trip_iou"]["median"] >= 0.99
    assert {"id": 901, "reason": "no mask, a box alone"} in report["left_out"]
    assert "Round trip IoU: median" in err
    assert "objects are left out" in err
    assert convert(source, "--to", target.value, "--out", tmp_path / "out")[0] == 2
    again = convert(source, "--to", target.value, "--out", tmp_path / "out", "--overwrite")
    assert again[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "yolo-seg"], 2, "--out"),
        (["--out", "x"], 2, "--to"),
        (["--to", "pascal", "--out", "x"], 2, "Invalid value"),
        (["--to", "yolo-seg", "--as", "mask", "--out", "x"], 2, "holds no masks"),
        (["--to", "png", "--as", "polygon", "--out", "x"], 2, "holds no polygons"),
        (["--to", "yolo-seg", "--policy", "keep", "--out", "x"], 2, "bridge or largest"),
        (["--to", "geojson", "--policy", "bridge", "--out", "x"], 2, "keep or largest"),
        (["--to", "coco", "--policy", "bridge", "--out", "x"], 2, "--as polygon"),
        (["--to", "coco", "--tolerance", "-1", "--out", "x"], 2, "--tolerance"),
        (["--to", "geojson", "--tolerance", "nan", "--out", "x"], 2, "--tolerance"),
        (["--to", "coco", "--images", "nowhere", "--out", "x"], 3, "nowhere"),
        (["other", "--to", "coco", "--out", "x"], 2, "one file at a time"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    arguments: list[str], code: int, words: str, convert, source: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, out, err = convert(source, *arguments)
    assert (ended, out) == (code, "")
    assert words in err
    assert "bug of ours" not in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["images"][0].update(file_name="../../a.jpg"), "leads out of its folder"),
        (lambda d: d["images"][0].update(file_name="/a.jpg"), "leads out of its folder"),
        (lambda d: d["images"][0].pop("file_name"), "has no file_name"),
        (lambda d: d["images"][1].update(file_name=d["images"][0]["file_name"]), "share the name"),
    ],
)
@pytest.mark.parametrize("target", ["yolo-seg", "labelme", "png", "geojson"])
def test_names_that_lead_astray_are_refused(
    target: str, change: Callable, words: str, convert, source: Path, tmp_path: Path
) -> None:
    document = zoo_document()
    change(document)
    source.write_text(json.dumps(document))
    code, _, err = convert(source, "--to", target, "--out", tmp_path / "out")
    assert (code, "bug of ours" in err) == (3, False)
    assert words in err
    assert not list(tmp_path.parent.glob("*.jpg"))


@pytest.mark.data
@pytest.mark.parametrize("target", Target)
def test_photographs_come_through(target: Target, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "coco-dev/annotations/instances_val2017.json"
    report = export_masks(read_source(path), target, tmp_path / "out")
    assert report.median >= 0.99
    if report.form == Form.mask:
        assert report.worst["iou"] == 1.0
