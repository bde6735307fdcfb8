"""Pictures and depth maps of strangers: read, or refused in clean words."""

import json
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from boxdepth.evaluate.cli import main
from boxdepth.evaluate.results import DataError
from boxdepth.evaluate.results.pictures import DepthMaps, is_turned, read_image, safe_path


def png_header(width: int, height: int) -> bytes:
    """A PNG file that promises `width` x `height` pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/etc/hostname", "a\x00b", "http://x/y.png", "", "x/../../secret.png",
     "a\nb.png", "n" * 5000 + ".png"],
)  # fmt: skip
def test_no_file_outside_the_folder_is_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    with pytest.raises(DataError, match="file_name"):
        safe_path(tmp_path / "images", name)


def test_a_folder_of_links_is_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (5, 4), "red").save(tmp_path / "blob", format="PNG")  # as in a hub's cache
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "blob")
    assert read_image(tmp_path / "images", "a.png", (4, 5)).shape == (4, 5, 3)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_file", ["NFC", "NFD"])
def test_composed_and_decomposed_names_are_one(on_disk: str, in_file: str, tmp_path: Path) -> None:
    name = "Bildschirmfoto\u202f ä [1] é.png"
    Image.new("RGB", (2, 2)).save(tmp_path / unicodedata.normalize(on_disk, name))
    assert read_image(tmp_path, unicodedata.normalize(in_file, name), (2, 2)).shape == (2, 2, 3)


def test_an_image_of_another_size_or_no_image_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "c.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:70])
    with pytest.raises(DataError, match="5 x 4 pixels, the annotations say 4 x 4"):
        read_image(tmp_path, "a.png", (4, 4))
    for name in ("b.png", "c.png"):
        with pytest.raises(DataError, match="no readable image"):
            read_image(tmp_path, name, (4, 5))


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (20_000, 10_000), (2**31 - 1, 2**31 - 1), (2**28, 2)]
)
def test_a_picture_beyond_the_limit_is_refused_by_its_header(
    width: int, height: int, tmp_path: Path
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    with pytest.raises(DataError, match="the limit is 178,956,970 pixels: scale it down"):
        read_image(tmp_path, "bomb.png", (height, width))
    with pytest.raises(DataError, match="the limit is"):
        DepthMaps(tmp_path).read("bomb.png", 1)


def test_a_large_picture_below_the_limit_is_no_warning(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_header(12_000, 12_000))
    with pytest.raises(DataError, match="12000 x 12000 pixels, the annotations say"):
        read_image(tmp_path, "large.png", (4, 4))


@pytest.mark.parametrize("form", ["webp", "bmp", "tiff", "jpg", "png"])
def test_usual_kinds_are_read(form: str, tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (200, 10, 10)).save(tmp_path / f"a.{form}")
    assert (
        abs(read_image(tmp_path, f"a.{form}", (4, 6))[2, 3].astype(int) - (200, 10, 10)).max() < 12
    )


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_deep_pixels_are_stretched(kind: str, tmp_path: Path) -> None:
    values = np.array([[1000, 2000], [3000, 5000]], dtype=kind)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    grey = read_image(tmp_path, "a.tiff", (2, 2))[..., 0]
    assert grey.tolist() == [[0, 64], [128, 255]]
    Image.fromarray(np.full((2, 2), 7, dtype=kind)).save(tmp_path / "flat.tiff")
    assert not read_image(tmp_path, "flat.tiff", (2, 2)).any()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_common_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    name = "a.tiff" if mode == "CMYK" else "a.png"
    Image.new("RGB", (3, 2), "white").convert(mode).save(tmp_path / name)
    assert (read_image(tmp_path, name, (2, 3)) == 255).all()


def turned(path: Path, orientation: int, size: tuple[int, int] = (6, 4)) -> None:
    picture = Image.new("RGB", size)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)


@pytest.mark.parametrize(("orientation", "words"), [(6, "turned by its EXIF orientation 6"),
                                                    (3, "right folder")])  # fmt: skip
def test_annotations_of_the_turned_picture_are_named(
    orientation: int, words: str, tmp_path: Path
) -> None:
    turned(tmp_path / "a.jpg", orientation)
    assert is_turned(tmp_path, "a.jpg")
    assert read_image(tmp_path, "a.jpg", (4, 6)).shape == (4, 6, 3)
    with pytest.raises(DataError, match=words):
        read_image(tmp_path, "a.jpg", (6, 4))


def test_an_orientation_that_does_not_exist_is_none(tmp_path: Path) -> None:
    turned(tmp_path / "a.jpg", 77)
    assert not is_turned(tmp_path, "a.jpg")


def test_depth_files_that_promise_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    length = struct.pack("<H", len(header) + 1)
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + length + header + b"\n")
    np.savez(tmp_path / "many.npz", a=np.ones((2, 2)))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "nan.npy", np.array([[np.nan, 1.0]]))
    np.save(tmp_path / "object.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    maps = DepthMaps(tmp_path)
    for stem in ("huge", "many", "cube", "text", "nan", "object", "empty"):
        with pytest.raises(DataError, match=stem):
            maps.read(f"{stem}.jpg", 1)


def test_hdf5_files_of_another_layout_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "depth.h5"
    with h5py.File(path, "w") as file:
        file["depth"], file["image_id"] = np.ones((2, 3, 4)), np.arange(3)
    with pytest.raises(DataError, match="expected \\[n, height, width\\] and \\[n\\]"):
        DepthMaps(path)
    with h5py.File(path, "w") as file:
        file.create_group("depth")["a"] = np.ones((3, 4))
        file.create_group("image_id")
        file.create_dataset("vast", shape=(10**6, 10**6), dtype="f4", chunks=True)
    maps = DepthMaps(path)
    assert maps.read("a.png", 1).shape == (3, 4)
    with pytest.raises(DataError, match="too many pixels"):
        maps.read("vast.png", 1)


@pytest.fixture
def run(
    make_set: Callable[..., tuple], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:  # fmt: skip
    """`report` or `proxies` on a set whose images are drawn, but for those named: code, stderr."""
    truth, results = make_set(5, images=9)
    for name, document in (("truth", truth), ("results", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    def command(which: str, bad: Callable[[Path], None], *, all_bad: bool) -> tuple[int, str]:
        for place, image in enumerate(truth["images"]):
            Image.new("RGB", (image["width"], image["height"])).save(tmp_path / image["file_name"])
            if all_bad or place == 0:
                bad(tmp_path / image["file_name"])
        extra = ["--html", str(tmp_path / "page.html"), "--overwrite"] if which == "report" else []
        monkeypatch.setattr(sys, "argv", [
            "evaluate", which, "--predictions", str(tmp_path / "results.json"), "--annotations",
            str(tmp_path / "truth.json"), "--images", str(tmp_path), *extra,
        ])  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return command


def bomb(path: Path) -> None:
    path.write_bytes(png_header(60_000, 60_000))


def gone(path: Path) -> None:
    path.unlink()


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("bad", [bomb, gone, broken])
def test_a_bad_picture_costs_a_report_that_picture_alone(bad, run, tmp_path: Path) -> None:
    code, err = run("report", bad, all_bad=False)
    page = (tmp_path / "page.html").read_text()
    assert code == 0
    if "Not drawn" in err:  # it was among those chosen
        assert "Not drawn" in page
    code, err = run("report", bad, all_bad=True)
    assert code == 3
    assert "bug of ours" not in err


@pytest.mark.parametrize("bad", [bomb, gone, broken])
def test_a_bad_picture_stops_proxies_in_clean_words(bad, run) -> None:
    code, err = run("proxies", bad, all_bad=True)
    assert (code, "bug of ours" in err) == (3, False)
    assert "error:" in err
