"""Folders of images, YOLO and Pascal VOC: what is read, what is counted, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxdepth.depthgen.datasets.coco import read_coco
from boxdepth.depthgen.datasets.coco_file import read_coco_file
from boxdepth.depthgen.datasets.masks import mask_area
from boxdepth.depthgen.datasets.read import Source, read_dataset
from boxdepth.depthgen.datasets.records import Dataset, OnBad
from boxdepth.depthgen.store import ConfigError, DataError, ImageRecord

from .conftest import encode
from .layouts import write_coco, write_image, write_voc, write_yolo


def _content(record: ImageRecord) -> tuple[Any, ...]:
    return (
        record.id, record.name, record.height, record.width, record.labels.tolist(),
        record.box_ids.tolist(), record.crowd.tolist(), record.areas.tolist(),
    )  # fmt: skip


def _assert_equal(ours: Dataset, reference: Dataset) -> None:
    assert ours.categories == reference.categories
    for one, two in zip(ours.records, reference.records, strict=True):
        assert _content(one)[:6] == _content(two)[:6]
        np.testing.assert_allclose(one.boxes_xyxy, two.boxes_xyxy, atol=1e-4)
        np.testing.assert_allclose(one.areas, two.areas, rtol=1e-5)


@pytest.mark.parametrize("layout", ["yolo", "yolo outlines", "voc"])
def test_yolo_and_voc_of_one_coco_file_hold_the_same(tmp_path: Path, layout: str) -> None:
    file, document = write_coco(tmp_path)
    reference = read_coco_file(
        tmp_path / "images" / "train", file, name="custom", split="train", masks=False,
        on_bad=OnBad.error,
    )  # fmt: skip
    if layout == "voc":
        write_voc(tmp_path, document)
    else:
        write_yolo(tmp_path, document, outlines="outlines" in layout)
    name = layout.split()[0]
    _assert_equal(read_dataset(name, Source(data_root=tmp_path)), reference)


def test_yolos_outlines_become_masks(tmp_path: Path) -> None:
    file, document = write_coco(tmp_path)
    write_yolo(tmp_path, document, outlines=True)
    data = read_dataset("yolo", Source(data_root=tmp_path), masks=True)
    expected = [item["area"] for item in document["annotations"]]
    masks = [mask for record in data.records for mask in record.masks or ()]
    assert [mask_area(mask) for mask in masks] == expected
    assert data.report.notes == (f"{len(expected)} boxes: around an outline of its own",)
    assert data.report.images_without_boxes == 1
    assert file.exists()


class TestYolo:
    """Layouts and label files as exporters write them."""

    def _root(self, tmp_path: Path, label: str = "0 0.5 0.5 0.25 0.5", yaml: str | None = None):
        write_image(tmp_path / "images" / "train" / "a.jpg")
        file = tmp_path / "labels" / "train" / "a.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(label)
        text = "train: images/train\nnames: [ape, bus]" if yaml is None else yaml
        (tmp_path / "data.yaml").write_text(text)
        return tmp_path

    def _boxes(self, root: Path, **options: Any) -> list[list[float]]:
        (record,) = read_dataset("yolo", Source(data_root=root), **options).records
        return record.boxes_xyxy.tolist()

    def test_a_box_is_centre_and_size_in_shares_of_the_image(self, tmp_path: Path) -> None:
        assert self._boxes(self._root(tmp_path)) == [[24, 12, 40, 36]]

    @pytest.mark.parametrize(
        "yaml",
        [
            "path: .\ntrain: images/train\nnames: {0: ape, 1: bus}",
            "train: ../images/train\nnames: ['ape', 'bus']",  # Roboflow's
            "train: images/train\nnc: 2",
            "names: [ape, bus]",
        ],
    )
    def test_the_ways_data_yaml_is_written(self, tmp_path: Path, yaml: str) -> None:
        assert self._boxes(self._root(tmp_path, yaml=yaml)) == [[24, 12, 40, 36]]

    def test_roboflows_folders_and_its_valid(self, tmp_path: Path) -> None:
        for split in ("train", "valid"):
            write_image(tmp_path / split / "images" / "a.jpg")
            (tmp_path / split / "labels").mkdir()
            (tmp_path / split / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 0.5")
        (tmp_path / "data.yaml").write_text(
            "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['ape', 'bus']"
        )
        for split in ("train", "val", "valid"):
            data = read_dataset("yolo", Source(data_root=tmp_path, split=split))
            assert data.records[0].labels.tolist() == [1]

    def test_a_class_list_does_without_data_yaml(self, tmp_path: Path) -> None:
        root = self._root(tmp_path)
        (root / "data.yaml").unlink()
        with pytest.raises(ConfigError, match="no class names"):
            self._boxes(root)
        (root / "classes.txt").write_text("ape\nbus\n")
        assert self._boxes(root) == [[24, 12, 40, 36]]

    def test_labels_may_lie_beside_the_images(self, tmp_path: Path) -> None:
        write_image(tmp_path / "train" / "a.jpg")
        (tmp_path / "train" / "a.txt").write_text("0 0.5 0.5 0.25 0.5")
        (tmp_path / "classes.txt").write_text("ape")
        assert self._boxes(tmp_path) == [[24, 12, 40, 36]]

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            ("2 0.5 0.5 0.2 0.2", r"line 1: class 2, and there are 2 \(0 to 1\)"),
            ("0.5 0.5 0.5 0.2 0.2", "class 0.5"),
            ("-1 0.5 0.5 0.2 0.2", "class -1"),
            ("nan 0.5 0.5 0.2 0.2", "class nan"),
            ("0 32 24 16 24", "shares of the image"),
            ("0 0.5 0.5 nan 0.2", "shares of the image"),
            ("0 0.5 0.5 -0.2 0.2", "negative width"),
            ("0 0.5 0.5 0.2", "3 numbers behind the class"),
            ("0 0.5 0.5 0.2 0.2 0.9", "5 numbers behind the class"),
            ("0 0.1 0.1 0.2 0.2 0.9 0.3 0.5", "7 numbers behind the class"),
            ("ape 0.5 0.5 0.2 0.2", "numbers are expected"),
        ],
    )
    def test_lines_that_are_no_labels_are_refused(
        self, tmp_path: Path, label: str, message: str
    ) -> None:
        root = self._root(tmp_path, label)
        with pytest.raises(DataError, match=message) as error:
            self._boxes(root)
        assert "'a.jpg'" in str(error.value)
        data = read_dataset("yolo", Source(data_root=root), on_bad=OnBad.skip)
        assert (len(data.records), len(data.report.rejected)) == (0, 1)

    def test_boxes_over_the_edge_are_cut_and_counted(self, tmp_path: Path) -> None:
        root = self._root(tmp_path, "0 0.95 0.5 0.4 0.5\n\n1 0.5 0.5 0 0.5\n")
        data = read_dataset("yolo", Source(data_root=root))
        np.testing.assert_allclose(data.records[0].boxes_xyxy, [[48, 12, 64, 36]], atol=1e-4)
        assert (data.report.boxes_clipped, data.report.boxes_dropped) == (1, 1)

    @pytest.mark.parametrize(
        ("yaml", "error", "message"),
        [
            ("names: [ape, ape]", DataError, "occurs twice"),
            ("names: {1: ape, 2: bus}", DataError, "0, 1, ... is expected"),
            ("a: [", DataError, "not YAML"),
            ("- 1", DataError, "names, train and val are expected"),
            ("kpt_shape: [17, 3]\nnames: [ape]", DataError, "poses"),
            ("!!python/object/apply:os.system ['false']", DataError, "not YAML"),
            ("train: [a, b]\nnames: [ape]", DataError, "a folder expected"),
        ],
    )
    def test_settings_that_cannot_be_followed_are_refused(
        self, tmp_path: Path, yaml: str, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            self._boxes(self._root(tmp_path, yaml=yaml))


class TestVoc:
    """The challenge's own files and those of exporters."""

    def _xml(
        self,
        box: str = "<xmin>9</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax>",
        *,
        source: str = "",
        size: str = "<width>64</width><height>48</height>",
    ) -> str:
        return (
            f"<annotation>{source}<size>{size}</size>"
            f"<object><name>cat</name><difficult>1</difficult><bndbox>{box}</bndbox></object>"
            "</annotation>"
        )

    def _read(self, root: Path, xml: str | bytes, **options: Any) -> Dataset:
        write_image(root / "train" / "a.jpg")
        file = root / "train" / "a.xml"
        file.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
        return read_dataset("voc", Source(data_root=root), **options)

    def test_files_beside_their_images(self, tmp_path: Path) -> None:
        data = self._read(tmp_path, self._xml())
        assert data.records[0].boxes_xyxy.tolist() == [[9, 5, 20, 30]]
        assert [category.name for category in data.categories] == ["cat"]
        assert data.report.notes == ("1 box: marked difficult, kept",)

    def test_the_challenges_pixels_count_from_one(self, tmp_path: Path) -> None:
        source = "<source><database>x</database><annotation>PASCAL VOC2007</annotation></source>"
        data = self._read(tmp_path, self._xml(source=source))
        assert data.records[0].boxes_xyxy.tolist() == [[8, 4, 20, 30]]
        assert "1 file: of PASCAL VOC: indices of pixels counted from 1" in data.report.notes

    def test_splits_of_the_official_layout(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations").mkdir()
        (tmp_path / "Annotations" / "b.xml").write_text(self._xml())
        main = tmp_path / "ImageSets" / "Main"
        main.mkdir(parents=True)
        (main / "val.txt").write_text("b  1\n")
        data = read_dataset("voc", Source(data_root=tmp_path, split="val"))
        assert [record.name for record in data.records] == ["b.jpg"]
        with pytest.raises(ConfigError, match=r"no ImageSets/Main/train\.txt"):
            read_dataset("voc", Source(data_root=tmp_path))
        (main / "train.txt").write_text("a\nmissing\n")
        with pytest.raises(ConfigError, match="1 images of the split are not there"):
            read_dataset("voc", Source(data_root=tmp_path))

    def test_a_class_list_gives_the_order(self, tmp_path: Path) -> None:
        (tmp_path / "classes.txt").write_text("dog\ncat\n")
        data = self._read(tmp_path, self._xml())
        assert [category.name for category in data.categories] == ["dog", "cat"]
        assert data.records[0].labels.tolist() == [1]
        (tmp_path / "classes.txt").write_text("dog\n")
        with pytest.raises(DataError, match=r"class 'cat' is not in classes\.txt"):
            self._read(tmp_path, self._xml())

    @pytest.mark.parametrize(
        ("xml", "message"),
        [
            ("<annotation>", "not XML"),
            (b"\xff\xfe\x00", "not XML"),
            ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>", "document type"),
            (
                '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><annotation/>'.encode("utf-16"),
                "document type",
            ),
            ("<annotation><object/></annotation>", "object 0 has no name"),
            ("<annotation><object><name>cat</name></object></annotation>", "xmin is None"),
        ],
    )
    def test_files_that_cannot_be_used_are_refused(
        self, tmp_path: Path, xml: str | bytes, message: str
    ) -> None:
        with pytest.raises(DataError, match=message) as error:
            self._read(tmp_path, xml)
        assert "'a.jpg'" in str(error.value)

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ("<xmin>x</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax>", "xmin is 'x'"),
            ("<xmin>1</xmin><ymin>5</ymin><xmax>nan</xmax><ymax>30</ymax>", "xmax is 'nan'"),
            ("<xmin>9</xmin><ymin>5</ymin><xmax>2</xmax><ymax>30</ymax>", "far side before"),
        ],
    )
    def test_boxes_that_are_none_are_refused(self, tmp_path: Path, box: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            self._read(tmp_path, self._xml(box))

    def test_a_file_of_another_image_size_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"says 64x48 \(height x width\), the image is 48x64"):
            self._read(tmp_path, self._xml(size="<width>48</width><height>64</height>"))
        zero = self._xml(size="<width>0</width><height>0</height>")
        assert "1 file: without the size of its image" in self._read(tmp_path, zero).report.notes


class TestFolder:
    """Images alone."""

    def test_all_formats_in_subfolders_and_what_is_no_image(self, tmp_path: Path) -> None:
        names = ["A.JPG", "b.png", "c.webp", "d.bmp", "e.tif", "x/y/f.jpg", "x/\u00e9 \u202f.jpg"]
        for k, name in enumerate(names):
            write_image(tmp_path / name, k, (20 + k, 30))
        for name in (".DS_Store", "._b.png", "x/.thumbs/a.jpg", "__MACOSX/b.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"\0\5\x16\7")
        for name in ("notes.txt", "Thumbs.db", "x/more.txt", "README"):
            (tmp_path / name).write_text("words")
        data = read_dataset("folder", Source(images=tmp_path))
        assert [record.name for record in data.records] == sorted(names)
        assert [record.id for record in data.records] == list(range(1, 8))
        assert {r.name: (r.height, r.width) for r in data.records}["x/y/f.jpg"] == (25, 30)
        assert data.categories == ()
        notes = "\n".join(data.report.notes)
        for text in (
            "1 folder: without annotations: its images get depth and no boxes",
            "4 files: hidden, passed over",
            "2 files: no image by its ending (.txt), passed over",
            "1 file: no image by its ending (.db), passed over",
            "1 file: no image by its ending (no ending), passed over",
            "--dataset yolo",
        ):
            assert text in notes

    def test_custom_without_annotations_is_the_same(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.jpg")
        data = read_dataset("custom", Source(images=tmp_path))
        assert (data.name, len(data.records)) == ("custom", 1)
        assert "without annotations" in data.report.notes[0]

    def test_what_is_no_image_in_spite_of_its_name_is_told_or_left_out(
        self, tmp_path: Path
    ) -> None:
        write_image(tmp_path / "a.jpg")
        (tmp_path / "b.jpg").write_text("<html>not found</html>")
        (tmp_path / "c.png").write_bytes(b"")
        with pytest.raises(DataError, match="2 bad records") as error:
            read_dataset("folder", Source(images=tmp_path))
        assert "'b.jpg': not JPEG" in str(error.value)
        assert "'c.png': the file is empty" in str(error.value)
        data = read_dataset("folder", Source(images=tmp_path), on_bad=OnBad.skip)
        assert [record.id for record in data.records] == [1]
        assert len(data.report.rejected) == 2

    def test_links_are_followed_and_circles_end(self, tmp_path: Path) -> None:
        write_image(tmp_path / "real" / "a.jpg")
        images = tmp_path / "images"
        images.mkdir()
        (images / "a.jpg").symlink_to(tmp_path / "real" / "a.jpg")
        (images / "again").symlink_to(images)
        (images / "far").symlink_to(tmp_path / "real")
        data = read_dataset("folder", Source(images=images))
        assert [record.name for record in data.records] == ["a.jpg", "far/a.jpg"]
        assert "2 images: a link that leads out of the image folder" in data.report.notes

    def test_large_metadata_and_headers_at_the_end_are_found(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x010E] = "x" * 60_000
        write_image(tmp_path / "a.jpg", exif=exif, comment=b"y" * 60_000)
        pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
        (tmp_path / "b.tif").write_bytes(encode(pixels, "TIFF"))
        sizes = [
            (r.height, r.width) for r in read_dataset("folder", Source(images=tmp_path)).records
        ]
        assert sizes == [(48, 64), (300, 200)]

    def test_nothing_to_read_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no image in it"):
            read_dataset("folder", Source(images=tmp_path))


def test_cocos_splits_without_boxes(tmp_path: Path) -> None:
    """unlabeled2017 and test2017 come as image_info_*.json, the first without categories."""
    (tmp_path / "annotations").mkdir()
    for split, folder in (("unlabeled2017", "unlabeled2017"), ("test-dev2017", "test2017")):
        write_image(tmp_path / folder / "a.jpg")
        document: dict[str, Any] = {
            "images": [{"id": 9, "file_name": "a.jpg", "height": 48, "width": 64}]
        }
        if split.startswith("test"):
            document["categories"] = [{"id": 1, "name": "person"}]
        file = tmp_path / "annotations" / f"image_info_{split}.json"
        file.write_text(json.dumps(document))
        data = read_coco(tmp_path, split=split)
        assert [record.id for record in data.records] == [9]
        assert data.report.notes == (
            "1 file: without annotations: its images get depth and no boxes",
        )


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("coco", {"images": Path("x")}, "takes --data-root"),
        ("voc", {"annotations": Path("x"), "data_root": Path("x")}, "custom and yolo"),
        ("folder", {}, "give --images"),
        ("voc", {}, "give --data-root"),
        ("yolo", {}, "data.yaml"),
        ("yolo", {"data_root": Path("nowhere")}, "no YOLO folder at nowhere"),
    ],
)
def test_arguments_of_another_layout_are_refused(
    name: str, source: dict[str, Path], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_dataset(name, Source(**source))
