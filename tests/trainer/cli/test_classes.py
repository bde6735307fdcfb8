"""Train, val, `--init` and `--fork` compare classes by name."""

import json
from pathlib import Path

import pytest
import torch

from boxdepth.trainer.engine.checkpoint import load_checkpoint


@pytest.fixture
def fit_on(trainer, make_store, tiny_settings: tuple[str, ...]):
    """`trainer fit` on stores of the given classes."""
    chosen = [part for setting in tiny_settings for part in ("--set", setting)]
    made: dict[tuple[object, ...], Path] = {}

    def store(classes: tuple[tuple[int, str], ...], *, masks: bool) -> Path:
        if (classes, masks) not in made:
            made[classes, masks] = make_store(
                f"store{len(made)}", categories=classes, masks=masks
            ).path
        return made[classes, masks]

    def run(train, *arguments: object, val=None, masks: bool = True) -> tuple[int, str, str]:
        stores: list[object] = ["--train", store(train, masks=masks)]
        stores += [] if val is None else ["--val", store(val, masks=masks)]
        return trainer("fit", "scenes_tiny", *stores, *chosen, *arguments)

    return run


AB = ((1, "a [x]"), (2, "b"))
ALL = ("--set", "inference.score_threshold=0.0", "--max-iterations", 1, "--json")


@pytest.mark.parametrize(
    ("val", "ids", "words"),
    [
        (((2, "b"), (7, "z")), {2}, "does not list 1 class learnt: 'a [x]'"),
        (((1, "b"), (2, "a [x]")), {1, 2}, "'a [x]' (id 1 in training, 2 there)"),
        (((1, "new"), (2, "a [x]"), (3, "b")), {2, 3}, "1 class that is not learnt: 'new'"),
    ],
    ids=["subset", "reordered", "three"],
)
def test_predictions_on_a_val_store_carry_its_ids_by_name(fit_on, val, ids, words) -> None:
    code, _, said = fit_on(AB, *ALL, "--out", "run", val=val)
    assert code == 0, said
    assert {
        row["category_id"] for row in json.loads(Path("run/predictions.json").read_text())
    } <= ids
    assert words in said
    code, _, said = fit_on(AB, "--out", "dry", "--dry-run", val=val)
    assert code == 0
    assert words in said


def test_a_val_store_of_other_classes_altogether_is_refused_before_training(fit_on) -> None:
    code, _, said = fit_on(AB, *ALL, "--out", "run", val=((1, "c"), (2, "d")))
    assert code == 3
    assert "none of its classes ('c', 'd') is learnt ('a [x]', 'b')" in said
    assert not Path("run").exists()


def test_without_masks_in_the_val_store_box_ap_is_given_and_the_null_explained(fit_on) -> None:
    code, out, said = fit_on(AB, *ALL, "--out", "run", val=AB, masks=False)
    assert code == 0, said
    ap = json.loads(out)["ap"]
    assert "segm" not in ap
    assert ap["bbox"]["ap"] is not None
    assert "has no masks: box AP only" in said
    assert "box AP" in said


def test_an_annotation_file_of_other_images_or_classes_is_noticed_before_training(fit_on) -> None:
    document = {"images": [{"id": i} for i in range(1000, 1006)], "annotations": []}
    path = Path("truth.json")
    path.write_text(json.dumps({**document, "categories": [{"id": 4, "name": "b"}]}))
    code, _, said = fit_on(AB, "--out", "r", "--dry-run", "--val-annotations", path, val=AB)
    assert code == 0
    assert (
        "truth.json has other ids for the classes learnt: 'b' (id 2 in training, 4 there)" in said
    )
    path.write_text(json.dumps({"images": [{"id": 5}], "categories": [{"id": 2, "name": "b"}]}))
    code, _, said = fit_on(AB, "--out", "r", "--dry-run", "--val-annotations", path, val=AB)
    assert code == 3
    assert "6 images of" in said


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(sorted(Path(run, "checkpoints").glob("step-*"))[-1]).model


def test_class_rows_go_by_name_when_a_run_starts_from_another(fit_on) -> None:
    still = (*ALL, "--set", "optimizer.learning_rate=1e-12")
    assert fit_on(AB, *still, "--out", "first")[0] == 0
    code, _, said = fit_on(
        ((8, "c"), (9, "b")), *still, "--out", "second", "--init", "first", "--seed", 1
    )
    assert code == 0, said
    assert "class rows go by name" in said
    assert "1 classes start anew: 'c'" in said
    assert "1 of its classes are not used: 'a [x]'" in said
    before, after = weights("first"), weights("second")
    name = "head.class_logits.weight"
    torch.testing.assert_close(after[name][1], before[name][1])
    assert not torch.allclose(after[name][0], before[name][0])
    torch.testing.assert_close(after["controller.weight"], before["controller.weight"])


def test_class_rows_go_by_name_when_there_are_more_of_them(fit_on) -> None:
    still = (*ALL, "--set", "optimizer.learning_rate=1e-12")
    assert fit_on(AB, *still, "--out", "first")[0] == 0
    three = ((1, "new"), (2, "b"), (3, "a [x]"))
    code, _, said = fit_on(three, *still, "--out", "second", "--init", "first")
    assert code == 0, said
    for name in ("head.class_logits.weight", "head.class_logits.bias"):
        before, after = weights("first")[name], weights("second")[name]
        torch.testing.assert_close(after[[2, 1]], before)


def test_a_fork_goes_on_with_the_same_classes_only(fit_on) -> None:
    assert fit_on(AB, *ALL, "--out", "stem")[0] == 0
    code, _, said = fit_on(((1, "b"), (2, "a [x]")), "--out", "branch", "--fork", "stem")
    assert code == 2
    assert "it learns 'a [x]', 'b', the training store has 'b', 'a [x]'" in said
    assert not Path("branch/run.json").exists()
