"""The paper's tables as runs: every row can be named, configured and shown."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from pycocotools import mask as rle
from typer.testing import CliRunner, Result

import reproduce
from boxdepth.depthgen.datasets.sample import write_sample
from boxdepth.depthgen.datasets.sample.files import load_inverse_depth
from boxdepth.depthgen.store import open_store
from boxdepth.trainer.config.overrides import apply_overrides
from boxdepth.trainer.config.presets import PRESETS
from paper import rows, tables, text
from paper.runs import source_of
from study import study as study_module
from study.exact_depth import write_exact_store
from study.given_boxes import mean_mask_iou
from study.scenes import ScenesStudy


def test_every_line_that_we_run_has_a_row() -> None:
    named = {line.row for table in tables.TABLES.values() for line in table.lines if line.row}
    assert named <= set(rows.ROWS)
    assert set(tables.TABLES) == {"1", "2", "3a", "3b", "3c", "3d"}


def test_every_row_is_a_valid_run_on_every_data_set() -> None:
    for row in rows.ROWS.values():
        for data in rows.PRESET_OF:
            config = rows.config_of(row, data, scale=0.1)
            assert config.name == row.name
            start = config.distillation.start
            assert config.distillation.method == "off" or start < config.schedule.iterations


def test_timelines_are_the_papers() -> None:
    def timeline(name: str) -> tuple[int, tuple[int, ...], int]:
        config = rows.config_of(rows.ROWS[name], rows.ROWS[name].data)
        schedule = config.schedule
        return schedule.iterations, schedule.steps, config.distillation.start

    assert timeline("ours-r50-1x") == (90_000, (60_000, 80_000), 65_000)
    assert timeline("ours-r101-3x") == (270_000, (210_000, 250_000), 215_000)
    assert timeline("city-ours-r50") == (24_000, (18_000,), 19_000)


def test_scale_shortens_everything_alike() -> None:
    config = rows.config_of(rows.ROWS["ours-r50-1x"], "coco", scale=0.1)
    assert config.schedule.iterations == 9000
    assert config.schedule.steps == (6000, 8000)
    assert config.distillation.start == 6500
    assert config.losses.warmup_iterations == 1000


def test_rows_are_what_their_names_say() -> None:
    def config(name: str):
        return rows.config_of(rows.ROWS[name], rows.ROWS[name].data)

    boxinst = config("boxinst-r50-1x")
    assert (boxinst.losses.depth, boxinst.losses.consistency) == (0, 0)
    assert boxinst.model.mask_head.depth == "off"
    assert boxinst.distillation.method == "off"
    assert config("terms-cons").losses.consistency == 1
    assert config("terms-cons").losses.depth == 0
    assert config("terms-depth").losses.consistency == 0
    assert config("terms-depth").model.mask_head.depth == "product"
    assert config("tau-0.3").losses.pairs.depth_threshold == 0.3
    assert config("gamma-2").distillation.gamma == 2
    assert config("teacher-same-iou").distillation.teacher_short_side is None
    assert config("teacher-800-iou").distillation.matching.beta == 0
    assert config("condinst-r50-3x").data.supervision == "masks"
    assert config("ours-iou-swinb-1x").model.fcos.quality == "iou"
    assert config("ours-r101-dcn-3x").model.backbone.deformable_stages == (3, 4, 5)
    assert config("boxteacher-r50-1x").distillation.method == "box_teacher"
    from_coco = rows.ROWS["city-ours-r50-coco"]
    assert from_coco.init == "ours-r50-1x"
    assert rows.config_of(from_coco, "cityscapes").model.backbone.weights is None
    assert config("ours-r50-1x").model.backbone.weights == "timm"


def test_boxteacher_equals_its_preset() -> None:
    ours = rows.config_of(rows.ROWS["boxteacher-r50-1x"], "coco")
    preset = PRESETS["boxteacher_r50_1x"]()
    same = ours.changed(name=preset.name)
    assert same.model_dump() == preset.model_dump()


def test_condinst_and_boxinst_equal_their_presets() -> None:
    for kind in ("condinst", "boxinst"):
        ours = rows.config_of(rows.ROWS[f"{kind}-r50-1x"], "coco").model_dump()
        preset = PRESETS[f"{kind}_r50_1x"]().model_dump()
        for section in ("data", "model", "losses", "schedule", "optimizer"):
            assert ours[section] == preset[section]


@pytest.mark.parametrize("name", sorted(rows.ROWS))
def test_the_command_of_a_row_makes_its_configuration(name: str) -> None:
    row = rows.ROWS[name]
    preset = PRESETS[rows.PRESET_OF[row.data]]()
    asked = apply_overrides(preset, rows.settings_of(row, row.data))
    assert asked.changed(name=name) == rows.config_of(row, row.data)


def test_tables_put_ours_beside_the_papers() -> None:
    result = {"segm": {"ap": 0.3123, "ap50": 0.5, "ap75": None}}
    cells = text.cells_of(
        tables.TABLES["3a"], lambda name: result if name == "terms-both" else None
    )
    both = cells[-1]
    assert both[3:9] == ("31.2", "50.0", "", "31.5", "52.9", "32.2")
    assert cells[0][3:6] == ("", "", ""), "blank where not run"
    markdown = text.as_markdown("Table 3a", cells)
    assert markdown.count("\n|") == len(cells) + 2
    assert "<td>31.2</td>" in text.as_html("Table <3a>", cells)
    assert "Table &lt;3a&gt;" in text.as_html("Table <3a>", cells)


def test_tables_say_what_was_changed_and_what_the_student_reaches() -> None:
    scores = {"ap": 0.3, "ap50": 0.5, "ap75": 0.3}
    result = {"segm": scores, "student": {"segm": scores | {"ap": 0.29}}, "set": ["precision=bf16"]}
    cells = text.cells_of(tables.TABLES["3a"], lambda name: result)
    assert cells[-1][-1].endswith("our student 29.0; ours with precision=bf16")


def test_a_setting_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    where = ("--out", str(tmp_path), "--data-root", str(tmp_path))
    done = _reproduce("run", "boxinst-r50-1x", *where, "--set", "data.batchsize=4")
    assert done.exit_code == 2
    assert "batch_size" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_cityscapes_counts_by_its_official_protocol() -> None:
    result = {"segm": {"ap": 0.1}, "cityscapes": {"segm": {"ap": 0.2441, "ap50": 0.5}}}
    cells = text.cells_of(tables.TABLES["2"], lambda name: result)
    assert cells[0][3:6] == ("24.4", "50.0", "")


def test_quoted_numbers_are_marked() -> None:
    for table in tables.TABLES.values():
        for line, cells in zip(table.lines, text.cells_of(table, lambda name: None), strict=True):
            assert (line.row is None) == cells[-1].startswith("quoted")
            if line.paper[0] is not None:
                assert line.source in cells[-1]


def _reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(reproduce.app, list(arguments))


def test_finished_runs_are_kept_and_fill_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "scenes-x0.5" / "tau-0.3"
    folder.mkdir(parents=True)
    scores = {"ap": 0.25, "ap50": 0.5, "ap75": 0.2}
    (folder / "result.json").write_text(json.dumps({"segm": scores, "bbox": scores}))
    where = ("--data", "scenes", "--scale", "0.5", "--out", str(tmp_path))
    done = _reproduce("run", "tau-0.3", *where)
    assert done.exit_code == 0, done.stderr
    assert "is done" in done.stderr
    page = tmp_path / "3b.html"
    table = _reproduce("table", "3b", *where, "--html", str(page))
    assert "| 0.3 | R-50 | 1x | 25.0 | 50.0 | 20.0 | 30.9 | 52.5 | 31.6 |" in table.stdout
    assert page.read_text().startswith("<!doctype html>")


def test_the_list_is_there_for_machines_too() -> None:
    listed = json.loads(_reproduce("list", "--json").stdout)["rows"]
    assert [row["name"] for row in listed] == list(rows.ROWS)
    by_name = {row["name"]: row["command"] for row in listed}
    assert by_name["gamma-2"] == "trainer fit coco_r50_1x --set distillation.gamma=2"


def test_scenes_are_judged_where_they_will_be_drawn(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    places = {"data_root": tmp_path / "data", "stores": tmp_path / "stores", "scenes": scenes}
    annotations = Path("annotations", "instances_val2017.json")
    assert source_of("scenes", **places).annotations == scenes / annotations
    assert source_of("coco", **places).annotations == tmp_path / "data" / "coco" / annotations
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    assert source_of("coco", **places).annotations == tmp_path / "data" / annotations


def test_an_unknown_row_is_a_usage_error() -> None:
    done = _reproduce("run", "ours-r50-9x")
    assert done.exit_code == 2
    assert "list" in done.stderr


def test_a_coco_start_must_be_there_first(tmp_path: Path) -> None:
    done = _reproduce("run", "city-ours-r50-coco", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert "ours-r50-1x" in done.stderr


class TestAblation:
    """The study on drawn scenes, as far as it goes without training."""

    @pytest.fixture
    def study(self, tmp_path: Path):
        facts = {"train": 8, "val": 4, "instances": 40, "camouflaged": 12}
        (tmp_path / "scenes.json").write_text(json.dumps(facts))
        return ScenesStudy(out=tmp_path, scale=1.0, device="cpu")

    def test_variants_differ_in_what_their_titles_say(self, study) -> None:
        def losses(name: str) -> tuple[bool, bool, str]:
            row = rows.ROWS[study_module.VARIANTS[name].row]
            config = rows.config_of(row, "scenes")
            return (
                config.losses.depth > 0,
                config.losses.consistency > 0,
                config.distillation.method,
            )

        assert losses("boxinst") == (0, 0, "off")
        assert losses("depth") == (1, 0, "off")
        assert losses("cons") == (0, 1, "off")
        assert losses("both") == (1, 1, "off")
        assert losses("distill") == (1, 1, "depth_matching")
        configs = [variant.config(study) for variant in study_module.VARIANTS.values()]
        budgets = {config.schedule.iterations for config in configs}
        assert len(budgets) == 1, "the same budget for all"

    def test_variants_equal_their_stem_until_they_fork(self, study) -> None:
        branches = {n: v for n, v in study_module.VARIANTS.items() if v.stem is not None}
        assert set(branches) >= {"distill", "distill-iou"}
        for variant in branches.values():
            stem = study_module.VARIANTS[variant.stem].config(study).model_dump()
            branch = variant.config(study).model_dump()
            differing = {key for key in branch if branch[key] != stem[key]}
            assert differing == {
                "name",
                "losses" if branch["distillation"]["method"] == "off" else "distillation",
            }
            for key in set(branch["losses"]) - {"consistency", "consistency_region"}:
                assert branch["losses"][key] == stem["losses"][key]
            kept = branch["checkpoints"]["every"] * branch["checkpoints"]["keep"]
            assert kept >= branch["schedule"]["iterations"], "none is deleted"

    def test_variants_of_one_stem_are_never_trained_side_by_side(self) -> None:
        names = ["boxinst", "both", "distill", "distill-iou", "distill-exact"]
        assert study_module.families(names) == [
            ["boxinst"],
            ["both", "distill", "distill-iou"],
            ["distill-exact"],
        ]

    def test_iou_of_given_boxes_is_that_of_the_pixels(self, tmp_path: Path) -> None:
        exact = np.zeros((8, 10), np.uint8)
        exact[2:6, 2:8] = 1  # 24 pixels
        half = exact.copy()
        half[2:4] = 0  # 12 of them
        encoded = [rle.encode(np.asfortranarray(mask)) for mask in (exact, half)]
        full, part = [{**one, "counts": one["counts"].decode()} for one in encoded]
        polygon = [[2, 2, 8, 2, 8, 6, 2, 6]]
        annotations = [
            {"id": 1, "image_id": 5, "segmentation": full, "camouflaged": True},
            {"id": 2, "image_id": 5, "segmentation": polygon, "camouflaged": False},
            {"id": 3, "image_id": 5, "segmentation": full, "iscrowd": 1},
        ]
        document = {"images": [{"id": 5, "height": 8, "width": 10}], "annotations": annotations}
        truth, found = tmp_path / "truth.json", tmp_path / "found.json"
        truth.write_text(json.dumps(document))
        found.write_text(
            json.dumps([{"id": 2, "segmentation": full}, {"id": 1, "segmentation": part}])
        )
        assert mean_mask_iou(found, truth) == {"all": 0.75, "camouflaged": 0.5, "plain": 1.0}
        found.write_text("[]")
        with pytest.raises(ValueError, match="no mask for annotation 1"):
            mean_mask_iou(found, truth)

    def test_table_has_mean_and_spread_of_teacher_and_student(self, study) -> None:
        for seed, ap in enumerate((0.10, 0.20)):
            folder = study.folder("distill", seed)
            folder.mkdir(parents=True)
            scores = {
                weights: {
                    **dict.fromkeys(study_module.COLUMNS, 0.1),
                    "ap": ap + extra,
                    "ap50": 0.5,
                }
                for weights, extra in (("teacher", 0.01), ("student", 0.0))
            }
            (folder / "result.json").write_text(json.dumps({"segm": scores}))
        text = study_module.markdown(study)
        assert "30 % of the objects camouflaged" in text
        assert "| 16.0 ± 7.1 (15.0 ± 7.1) | 50.0 ± 0.0 (50.0 ± 0.0) |" in text
        assert "BoxInst" not in text, "no line for what wasn't run"

    def test_runs_of_another_length_need_another_folder(self, study) -> None:
        study_module.begin(study)
        study_module.begin(study)
        with pytest.raises(typer.BadParameter, match="use --out"):
            study_module.begin(replace(study, scale=0.5))

    def test_exact_store_holds_the_drawn_depth(self, tmp_path: Path) -> None:

        scenes = tmp_path / "scenes"
        write_sample(scenes, train=2, val=0, size=(48, 64), seed=5)
        store = open_store(write_exact_store(tmp_path / "exact.zarr", scenes, "train2017"))
        for index, name in enumerate(store.image_names):
            drawn = load_inverse_depth(scenes / "depth" / "train2017" / f"{Path(name).stem}.png")
            scaled = 255 * (drawn - drawn.min()) / (drawn.max() - drawn.min())
            assert abs(store.inverse_depth(index) - scaled).max() < 0.01
        assert store.masks(0)[0] is not None
