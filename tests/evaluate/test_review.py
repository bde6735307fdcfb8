"""The review page: worst first, one offline file, and keys that do what they say in a browser."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from boxdepth.evaluate.cli import main
from boxdepth.evaluate.export import read_source
from boxdepth.evaluate.results import DataError
from boxdepth.evaluate.review import review_order, review_page

NAMES = ["a [1].jpg", "b</script><script>alert(1)</script>.jpg".replace("/", "∕"), "ç.png"]


def rle(mask: np.ndarray) -> dict[str, Any]:
    coded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode()}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """`masks.json` with six objects of known quality, a crowd and a box alone, and its images."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for place, name in enumerate(NAMES):
        pixels = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        images.append({"id": place, "file_name": name, "height": 90, "width": 120})
        for half in range(2):
            mask = np.zeros((90, 120), dtype=bool)
            mask[10 + 30 * half : 40 + 30 * half, 20:70] = True
            mask[20 + 30 * half : 25 + 30 * half, 30:40] = half == 0
            number = 2 * place + half
            annotations.append({
                "id": 50 + number, "image_id": place, "category_id": 1, "iscrowd": 0,
                "bbox": [20, 10 + 30 * half, 50, 30], "area": int(mask.sum()),
                "segmentation": rle(mask), "quality": [0.9, 0.2, 0.5, 0.8, 0.1, 0.4][number],
                "mine": number,
            })  # fmt: skip
    common = {"image_id": 0, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25}
    annotations.append(
        {**common, "id": 90, "iscrowd": 1, "segmentation": annotations[0]["segmentation"]}
    )
    annotations.append({**common, "id": 91, "iscrowd": 0, "segmentation": []})
    document = {
        "images": images, "annotations": annotations, "info": {"mine": True},
        "categories": [{"id": 1, "name": "</script><b>x"}],
    }  # fmt: skip
    (tmp_path / "masks.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def page(files: Path) -> Path:
    """The review page of all six."""
    review = review_page(read_source(files / "masks.json"), files, top=200, title="Mine & yours")
    (files / "review.html").write_text(review.html, encoding="utf-8")
    assert (review.shown, review.objects, review.notes) == (6, 6, ())
    return files / "review.html"


def cards(page: Path) -> list[dict[str, Any]]:
    text = page.read_text("utf-8").split('id="cards">')[1].split("</script>")[0]
    return json.loads(text)


def test_the_worst_come_first_and_boxes_alone_and_crowds_never(page: Path) -> None:
    assert [card["id"] for card in cards(page)] == [54, 51, 55, 52, 53, 50]


def test_score_stands_in_for_quality_and_nothing_comes_last() -> None:
    records = [
        {"score": 0.3}, {}, {"quality": 0.9, "score": 0.1}, {"quality": None, "score": 0.2},
        {"quality": float("nan")}, {"quality": "0.0"}, {"quality": True, "score": 0.5},
    ]  # fmt: skip
    assert review_order(records, range(7)) == [3, 0, 6, 2, 1, 4, 5]


def test_the_page_needs_nothing_but_itself(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("</script>") == 3
    assert "<b>x" not in text
    assert "Mine &amp; yours" in text


def test_outlines_lie_on_the_pixels_of_the_masks(page: Path, files: Path) -> None:
    """An outline's corners, back in the image, are the mask's; holes are there too."""
    card = next(card for card in cards(page) if card["id"] == 51)
    rings = [
        np.array([point.split(",") for point in ring.rstrip("Z").split("L")], dtype=float)
        for ring in card["path"].split("M")[1:]
    ]
    box = np.array(card["box"])
    assert np.abs(rings[0].min(axis=0) - box[:2]).max() <= 0.2
    assert np.abs(rings[0].max(axis=0) - (box[:2] + box[2:])).max() <= 0.2
    assert max(card["width"], card["height"]) == 720


def test_the_top_are_as_many_as_asked_for(files: Path) -> None:
    review = review_page(read_source(files / "masks.json"), files, top=2, title="t")
    assert (review.shown, review.objects) == (2, 6)


def test_an_image_that_cannot_be_read_is_named(files: Path) -> None:
    (files / NAMES[0]).write_bytes(b"no picture")
    review = review_page(read_source(files / "masks.json"), files, top=9, title="t")
    assert review.shown == 4
    assert "no readable image" in review.notes[0]
    for name in NAMES:
        (files / name).unlink()
    with pytest.raises(DataError, match="is not there"):
        review_page(read_source(files / "masks.json"), files, top=9, title="t")


# --- in a browser --------------------------------------------------------------------------------


def press(window: Any, *keys: str) -> None:
    for key in keys:
        window.find_element(By.TAG_NAME, "body").send_keys(key)


def about(window: Any) -> str:
    return window.find_element(By.ID, "about").text


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(width: int, page: Path, open_page: Callable) -> None:
    window = open_page(page, width, 800)
    assert window.title == "Mine & yours"
    assert about(window).startswith("1 of 6 · </script><b>x · quality 0.10")
    outside = window.execute_script(
        """return [...document.querySelectorAll('button, #about, #stage, h1')].filter(e => {
             const box = e.getBoundingClientRect();
             return box.left < 0 || box.right > innerWidth + 1 || box.bottom > innerHeight + 1;
           }).map(e => e.id)"""
    )
    assert outside == []
    assert not [line for line in window.get_log("browser") if line["level"] == "SEVERE"]
    shown = window.execute_script(
        "const p = document.getElementById('picture'); return p.complete && p.naturalWidth > 0"
    )
    assert shown


@pytest.mark.slow
def test_keys_decide_and_what_was_decided_is_saved(
    page: Path, open_page: Callable, tmp_path: Path
) -> None:
    window = open_page(page, 1280, 800)
    window.execute_script("localStorage.clear()")
    window.refresh()
    press(window, "a", "r", "d")  # 54, 51, 55
    assert about(window).startswith("4 of 6")
    press(window, "d", Keys.ARROW_LEFT, "d")  # 52: dropped, and not after all
    assert window.find_element(By.ID, "counts").text == "1 accepted, 1 to redo, 1 dropped"
    window.refresh()  # decisions outlive the page, which goes on with the first open one
    assert window.find_element(By.ID, "counts").text == "1 accepted, 1 to redo, 1 dropped"
    assert about(window).startswith("4 of 6")
    window.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    press(window, "s")
    saved = tmp_path / "reviewed.json"
    until = time.monotonic() + 120
    while not saved.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    document = json.loads(saved.read_text("utf-8"))
    before = json.loads((tmp_path / "masks.json").read_text("utf-8"))
    assert document["info"] == before["info"]
    assert document["images"] == before["images"]
    found = {a["id"]: a for a in document["annotations"]}
    assert set(found) == {a["id"] for a in before["annotations"]} - {55}
    assert found[54]["review"] == "accept"
    assert found[54]["segmentation"] == before["annotations"][4]["segmentation"]
    assert (found[51]["review"], found[51]["segmentation"]) == ("redo", [])
    assert "review" not in found[50]
    assert found[50]["mine"] == 0
    assert found[50]["segmentation"] == before["annotations"][0]["segmentation"]
    again = read_source(saved)  # what training and every other command reads
    assert again.masks.present.sum() == 5
    rest = window.execute_script(
        "document.getElementById('rest').value = 'box'; return reviewed().annotations"
    )
    assert {a["id"] for a in rest if a["segmentation"]} == {54, 90}


@pytest.mark.slow
def test_zoom_and_outline(page: Path, open_page: Callable) -> None:
    window = open_page(page, 1280, 800)
    stage = window.find_element(By.ID, "stage")
    before = stage.size["width"]
    press(window, "+", "+")
    assert stage.size["width"] == pytest.approx(2.25 * before, rel=0.02)
    press(window, "-", "-", "-", "-")
    assert stage.size["width"] == pytest.approx(before, rel=0.02)
    shape = window.find_element(By.ID, "shape")
    assert shape.is_displayed()
    press(window, "o")
    assert not shape.is_displayed()
    window.find_element(By.ID, "outline").click()
    assert shape.is_displayed()
    press(window, Keys.END)
    assert about(window).startswith("6 of 6")
    press(window, Keys.HOME)
    assert about(window).startswith("1 of 6")


# --- command -------------------------------------------------------------------------------------


@pytest.fixture
def review(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: Path
) -> Callable[..., tuple[int, str, str]]:
    """`evaluate review` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        command = ["evaluate", "review", files / "masks.json", "--html", files / "new.html"]
        monkeypatch.setattr(sys, "argv", [*map(str, command), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_the_command_writes_the_page_and_tells(review, files: Path) -> None:
    code, out, err = review("--images", files, "--top", 3, "--json")
    assert code == 0
    assert json.loads(out)["shown"] == 3
    assert "3 of 6 masks, worst first" in err
    assert len(cards(files / "new.html")) == 3
    assert review("--images", files)[0] == 2  # nothing is overwritten
    assert review("--images", files, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--images"),
        (["--images", "nowhere"], 3, "is not there"),
        (["--images", ".", "--top", "0"], 2, "--top"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(arguments, code, words, review) -> None:
    ended, out, err = review(*arguments)
    assert (ended, out) == (code, "")
    assert words in err
    assert "bug of ours" not in err


def test_a_file_without_masks_has_nothing_to_review(review, files: Path) -> None:
    document = json.loads((files / "masks.json").read_text())
    document["annotations"] = document["annotations"][-1:]
    (files / "masks.json").write_text(json.dumps(document))
    code, _, err = review("--images", files)
    assert (code, "no object has a mask" in err) == (3, True)
