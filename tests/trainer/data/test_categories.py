"""Classes go by name."""

import pytest

from boxdepth.depthgen.store import Category
from boxdepth.trainer.data.categories import differences, ids_by_name, rows_by_name, same_classes


def classes(*pairs: tuple[int, str]) -> list[Category]:
    return [Category(id=number, name=name) for number, name in pairs]


AB = classes((1, "a"), (2, "b"))


@pytest.mark.parametrize(
    ("wanted", "known", "rows"),
    [
        (AB, AB, (0, 1)),
        (AB, classes((2, "b")), (None, 0)),
        (AB, classes((1, "b"), (2, "a")), (1, 0)),
        (AB, classes((1, "new"), (2, "a"), (3, "b")), (1, 2)),
        (AB, classes((1, "c"), (2, "d")), (None, None)),
        (classes((0, "fruit"), (1, "fruit")), classes((1, "fruit"), (0, "fruit")), (1, 0)),
        (classes((1, "fruit")), classes((0, "fruit"), (1, "fruit")), (1,)),
        (classes((5, "fruit"), (6, "fruit")), classes((0, "fruit")), (0, None)),
        (classes((1, "Bär")), classes((4, "Ba\u0308r")), (0,)),
    ],
)
def test_each_class_finds_the_row_of_its_name(wanted, known, rows) -> None:
    assert rows_by_name(wanted, known) == rows
    ids = tuple(None if row is None else known[row].id for row in rows)
    assert ids_by_name(wanted, known) == ids


def test_nothing_is_said_where_nothing_differs() -> None:
    assert differences(AB, AB, where="val.zarr") == []
    assert differences(AB, AB[::-1], where="val.zarr") == []
    assert same_classes(AB, AB)
    assert not same_classes(AB, AB[::-1])


def test_what_differs_is_said_with_its_consequence() -> None:
    said = differences(AB, classes((1, "c"), (3, "b")), where="val.zarr")
    assert "'b' (id 2 in training, 3 there)" in said[0]
    assert "val.zarr does not list 1 class learnt: 'a'; predictions of it are left out" in said[1]
    assert "val.zarr has 1 class that is not learnt: 'c'; nothing is predicted there" in said[2]
