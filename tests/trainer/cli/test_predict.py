"""`trainer predict` on files as people have them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxdepth.evaluate.export import read_source
from boxdepth.evaluate.results import UsageError
from boxdepth.trainer.engine import checkpoint


def picture(path: str, size: tuple[int, int] = (40, 56), **options: object) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return Path(path)


def write_boxes(*listed: tuple[int, str], size: tuple[int, int] = (40, 56), **image) -> None:
    document = {
        "images": [
            {"id": i, "file_name": name, "height": size[0], "width": size[1], **image}
            for i, name in listed
        ],
        "annotations": [
            {"id": 50 + i, "image_id": i, "category_id": 77, "bbox": [5, 5, 20, 20]}
            for i, _ in listed
        ],
        "categories": [{"id": 77, "name": "jar [old]"}],
    }
    Path("boxes.json").write_text(json.dumps(document))


def results(path: str = "p.json") -> list[dict]:
    return json.loads(Path(path).read_text())


@pytest.fixture
def predict(trainer, tiny_checkpoint: Path):
    def run(*arguments: object) -> tuple[int, str, str]:
        return trainer("predict", tiny_checkpoint, *arguments, "--out", "p.json")

    return run


def test_results_and_the_list_of_images_name_the_pictures(predict) -> None:
    picture("a/x.jpg")
    picture("b/x.png", (30, 64))
    assert predict("a", "b")[0] == 0
    listed = json.loads(Path("p.images.json").read_text())
    assert [(row["id"], row["file_name"]) for row in listed["images"]] == [
        (1, "x.jpg"),
        (2, "x.png"),
    ]
    assert listed["images"][1].items() >= {"height": 30, "width": 64}.items()
    assert listed["categories"] == [{"id": 3, "name": "cup"}, {"id": 9, "name": "bowl"}]
    assert {(row["image_id"], row["file_name"]) for row in results()} == {
        (1, "x.jpg"),
        (2, "x.png"),
    }


def test_results_in_boxes_carry_the_ids_of_the_boxes_file(predict) -> None:
    for name in ("cat.jpg", "dog.jpg"):
        picture(f"photos/{name}")
    write_boxes((902000103548, "dog.jpg"), (0, "cat.jpg"))
    code, _, said = predict("photos", "--boxes", "boxes.json", "--overlay", "drawn")
    assert code == 0, said
    found = {(row["id"], row["image_id"], row["file_name"]) for row in results()}
    assert found == {(902000103598, 902000103548, "dog.jpg"), (50, 0, "cat.jpg")}
    assert {row["category_id"] for row in results()} == {77}
    assert len(list(Path("drawn").iterdir())) == 2


def test_boxes_of_absent_images_are_left_out_with_a_word(predict) -> None:
    picture("photos/cat.jpg")
    picture("photos/bird.jpg")
    write_boxes((1, "dog [wild].jpg"), (2, "cat.jpg"))
    code, out, said = predict("photos", "--boxes", "boxes.json", "--json")
    assert code == 0
    assert [row["image_id"] for row in results()] == [2]
    assert json.loads(out)["images"] == 1
    assert "1 boxes are on 1 images that are not given" in said
    assert "dog [wild].jpg" in said
    assert "1 pictures have no boxes" in said


def test_no_box_on_a_given_picture_is_an_error(predict) -> None:
    picture("cat.jpg")
    write_boxes((1, "dog.jpg"))
    code, _, said = predict("cat.jpg", "--boxes", "boxes.json")
    assert code == 3
    assert "boxes are on dog.jpg; given: cat.jpg" in said
    assert not Path("p.json").exists()


def test_boxes_of_a_store_go_by_its_names(predict, make_store) -> None:
    store = make_store(sizes=[(40, 56)] * 2).path
    write_boxes((1000, "0001.png"), (5, "0000.png"))
    assert predict("--store", store, "--boxes", "boxes.json")[0] == 0
    assert sorted(row["id"] for row in results()) == [55, 1050]
    listed = json.loads(Path("p.images.json").read_text())["images"]
    assert [(row["id"], row["file_name"]) for row in listed] == [
        (5, "0000.png"),
        (1000, "0001.png"),
    ]


def test_a_picture_of_another_size_than_its_boxes_say_is_bad(predict) -> None:
    picture("cat.jpg")
    write_boxes((1, "cat.jpg"), size=(56, 40))
    code, _, said = predict("cat.jpg", "--boxes", "boxes.json")
    assert code == 3
    assert "40x56" in said


@pytest.mark.parametrize("text", ["[" * 50_000, '{"annotations": 1e999}', "1" + "0" * 10_000])
def test_a_file_that_is_no_boxes_file_is_one_line(predict, text: str) -> None:
    picture("cat.jpg")
    Path("boxes.json").write_text(text)
    code, _, said = predict("cat.jpg", "--boxes", "boxes.json")
    assert code == 3
    assert "boxes.json" in said
    assert "bug" not in said


def test_the_list_of_images_goes_with_its_results(predict) -> None:
    picture("photos/a.jpg")
    assert predict("photos")[0] == 0
    code, _, said = predict("photos")
    assert (code, "p.json exists already; --overwrite replaces it" in said) == (2, True)
    Path("p.json").unlink()  # and the list stays behind
    picture("photos/b.jpg")
    assert predict("photos")[0] == 0
    listed = json.loads(Path("p.images.json").read_text())["images"]
    assert [row["file_name"] for row in listed] == ["a.jpg", "b.jpg"]


def test_one_bad_picture_costs_no_other(predict) -> None:
    for name in ("a", "b", "c"):
        picture(f"photos/{name}.jpg")
    broken = Path("photos/b.jpg")
    broken.write_bytes(broken.read_bytes()[:300])
    code, out, said = predict("photos", "--overlay", "drawn", "--json")
    assert code == 3
    assert "1 picture can't be used; the predictions on the others are in p.json" in said
    assert "b.jpg" in said
    assert {row["file_name"] for row in results()} == {"a.jpg", "c.jpg"}
    assert json.loads(out).items() >= {"images": 2, "left_out": ["b.jpg"]}.items()
    assert [row["file_name"] for row in json.loads(Path("p.images.json").read_text())["left_out"]]
    code, _, said = predict("photos", "--on-bad", "skip", "--overwrite")
    assert code == 0
    assert "b.jpg" in said
    assert predict("photos", "--on-bad", "maybe", "--overwrite")[0] == 2


def test_nothing_but_bad_pictures_writes_nothing(predict) -> None:
    Path("a.jpg").write_bytes(b"\xff\xd8 no picture")
    code, _, said = predict("a.jpg", "--on-bad", "skip")
    assert code == 3
    assert "nothing was written" in said
    assert not Path("p.json").exists()


def test_pictures_of_formats_that_are_not_read_are_named(predict) -> None:
    picture("photos/a.jpg")
    picture("photos/b.gif")
    code, _, said = predict("photos")
    assert code == 0
    assert "1 pictures of formats that are not read are left out (b.gif)" in said


def test_an_exif_orientation_is_ignored_and_said_to_be(predict) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    picture("turned.jpg", exif=exif)
    code, _, said = predict("turned.jpg")
    assert code == 0
    assert "1 picture with an EXIF orientation, which is ignored" in said


@pytest.mark.parametrize("what", ["folder", "below a file"])
def test_a_result_that_cannot_be_written_is_noticed_before_the_work(
    trainer, tiny_checkpoint: Path, what: str
) -> None:
    picture("a.jpg")
    Path("taken").mkdir() if what == "folder" else Path("taken").write_text("")
    out = "taken" if what == "folder" else "taken/p.json"
    code, _, said = trainer("predict", tiny_checkpoint, "a.jpg", "--out", out)
    assert code == 2
    assert "taken" in said
    code, _, said = trainer(
        "predict", tiny_checkpoint, "a.jpg", "--out", "q.json", "--overlay", "a.jpg"
    )
    assert code == 2
    assert "a.jpg" in said


def test_a_full_disk_names_the_file(predict, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("a.jpg")

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_synced", full)
    code, _, said = predict("a.jpg")
    assert code == 6
    assert "p.json: cannot write" in said
    assert "No space left on device" in said
    assert [path.name for path in Path().iterdir() if path.is_file()] == ["a.jpg"]


def test_a_tilde_behind_an_equals_sign_is_home(
    trainer, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    picture("home/a.jpg")
    code, _, said = trainer("predict", tiny_checkpoint, "home/a.jpg", "--out=~/p.json")
    assert code == 0, said
    assert Path("home/p.json").is_file()
    assert not Path("~").exists()


def test_a_store_with_other_classes_gets_its_own_ids_by_name(predict, make_store) -> None:
    store = make_store("other", categories=((3, "bowl"), (5, "vase"))).path
    code, _, said = predict("--store", store)
    assert code == 0
    assert {row["category_id"] for row in results()} <= {3}
    assert "'bowl' (id 9 in training, 3 there)" in said
    assert "does not list 1 class learnt: 'cup'" in said
    assert "1 class that is not learnt: 'vase'" in said
    strange = make_store("strange", categories=((3, "x"), (9, "y"))).path
    code, _, said = predict("--store", strange, "--overwrite")
    assert code == 3
    assert "none of its classes ('x', 'y') is learnt ('cup', 'bowl')" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": "one"}, "step is 'one'"),
        ({"categories": [{"id": 3}]}, "does not fit this version"),
        ({"categories": 7}, "does not fit this version"),
        ({"config": []}, "does not fit this version"),
        ({"files": {"model.safetensors": 7, "state.pt": 8}}, "expected its bytes and sha256"),
        ({"categories": [{"id": 3, "name": "cup"}]}, "names 1 categories"),
    ],
)
def test_a_checkpoint_changed_by_hand_is_said_to_be(
    predict, tiny_checkpoint: Path, change: dict, words: str
) -> None:
    picture("a.jpg")
    path = next(tiny_checkpoint.glob("checkpoints/*/run.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    code, _, said = predict("a.jpg")
    assert code == 3
    assert words in said


def test_weights_that_are_not_finite_are_refused_by_name(trainer, tiny_checkpoint: Path) -> None:
    picture("a.jpg")
    whole = checkpoint.load_checkpoint(checkpoint.find_checkpoint(tiny_checkpoint))
    name = next(name for name in whole.model if name.endswith("running_var"))
    whole.model[name][0] = float("nan")
    checkpoint.save_checkpoint(Path("spoilt/checkpoints"), whole)
    code, _, said = trainer("predict", "spoilt", "a.jpg", "--out", "p.json")
    assert code == 3
    assert name in said
    assert not Path("p.json").exists()


def test_names_with_brackets_come_out_as_they_are(trainer, tiny_checkpoint: Path) -> None:
    Path("r [").mkdir()
    run = tiny_checkpoint.rename(Path("r [/x]"))
    picture("im [red]/a[/y].jpg")
    code, _, said = trainer("predict", run, "im [red]", "--out", "p [b].json")
    assert code == 0
    assert "p [b].json" in said
    code, _, said = trainer("predict", "nothing [/x]", "im [red]", "--out", "q.json")
    assert code == 3
    assert "nothing [/x]" in said
    assert os.listdir(".").count("q.json") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_finished_is_kept_when_a_signal_comes(
    tiny_checkpoint: Path, tmp_path: Path, number: int, code: int
) -> None:
    """As on a terminal: a process of its own, interrupted once its first overlay is there."""
    whole = picture(str(tmp_path / "photos" / "000.png"), (20, 28)).read_bytes()
    for k in range(1, 400):
        (tmp_path / "photos" / f"{k:03d}.png").write_bytes(whole)
    command = [
        sys.executable, "-m", "boxdepth.trainer.cli", "predict", str(tiny_checkpoint), "photos",
        "--out", "p.json", "--overlay", "drawn", "--overlay-threshold", "1",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={**os.environ, "CI": "1"}
    )
    drawn = tmp_path / "drawn"
    while process.poll() is None and not (drawn.is_dir() and list(drawn.glob("*.png"))):
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate()
    words = " ".join(said.split())
    assert process.returncode == code, said
    document = json.loads((tmp_path / "p.images.json").read_text())
    done = len(document["images"])
    assert 0 < done < 400
    assert f"after {done} of 400 pictures; their predictions are in p.json" in words
    assert "Traceback" not in said
    assert len(document["left_out"]) == 400 - done
    assert {row["why"] for row in document["left_out"]} == {"stopped before it"}
    named = {row["file_name"] for row in document["images"]}
    assert {row["file_name"] for row in results(str(tmp_path / "p.json"))} <= named


def test_a_stores_own_boxes_get_a_mask_each(predict, trainer, make_store) -> None:
    """Crowd regions and boxes without area are left out and counted; ids are the store's."""

    def boxes(index: int, height: int, width: int) -> np.ndarray:
        return np.array([[4, 6, 30, 40], [8, 8, 8, 20], [0, 0, 60, 50]], np.float32)

    store = make_store(
        "own",
        sizes=[(64, 96), (50, 70)],
        boxes=boxes,
        crowd=lambda index: np.array([False, False, True]),
        categories=((7, "[jar]"), (3, "cup")),
    )
    code, out, said = predict("--store", store.path, "--boxes", "store", "--json")
    assert code == 0, said
    assert json.loads(out)["instances"] == 2
    assert [(r["id"], r["image_id"], r["category_id"]) for r in results()] == [
        (100, 1000, 7),
        (200, 1001, 7),
    ]
    np.testing.assert_allclose([r["bbox"] for r in results()], [[4, 6, 26, 34]] * 2, atol=1e-2)
    assert "2 crowd boxes and 2 boxes without area are left out" in said
    listed = json.loads(Path("p.images.json").read_text())
    assert listed["categories"] == [{"id": 7, "name": "[jar]"}, {"id": 3, "name": "cup"}]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in listed["annotations"]] == [
        (100, 1000, 7),
        (200, 1001, 7),
    ]
    assert listed["annotations"][0]["bbox"] == [4, 6, 26, 34]
    items = read_source(Path("p.json"))  # convert and review need no other file
    assert items.ids.tolist() == [100, 200]
    assert items.category_names == ("cup", "[jar]")
    assert items.masks.present.all()
    code, _, said = predict("photos", "--boxes", "store", "--overwrite")
    assert code != 0
    picture("photos/a.png")
    code, _, said = predict("photos", "--boxes", "store", "--overwrite")
    assert code == 2
    assert "give it with --store" in said
    bare = make_store("bare", boxes=lambda index, height, width: np.zeros((0, 4), np.float32))
    code, _, said = predict("--store", bare.path, "--boxes", "store", "--overwrite")
    assert code == 3
    assert "holds no box to give a mask to" in said


def test_the_boxes_a_run_learnt_from_are_found_by_the_run(trainer, fit) -> None:
    assert fit("--max-iterations", 1, "--out", "run")[0] == 0
    command = ("predict", "run", "--boxes", "store", "--out", "m.json", "--overwrite")
    code, out, said = trainer(*command, "--json")
    assert code == 0, said
    assert json.loads(out)["instances"] == 12  # two boxes on each of six images
    Path("train.zarr").rename("elsewhere.zarr")
    code, _, said = trainer(*command)
    assert (code, "train.zarr, which is not there; give it with --store" in said) == (2, True)


def test_results_without_their_list_of_images_are_told_what_is_missing(predict) -> None:
    picture("photos/cat.jpg")
    assert predict("photos")[0] == 0
    assert len(read_source(Path("p.json"))) == len(results())
    Path("p.images.json").unlink()
    with pytest.raises(UsageError, match=r"p\.images\.json"):
        read_source(Path("p.json"))


def test_the_precision_of_the_network_is_chosen_and_said(predict) -> None:
    picture("cat.jpg")
    for precision in ("fp32", "bf16"):
        code, out, _ = predict("cat.jpg", "--precision", precision, "--json", "--overwrite")
        assert (code, json.loads(out)["precision"]) == (0, precision)
    assert predict("cat.jpg", "--precision", "fp8", "--overwrite")[0] == 2
