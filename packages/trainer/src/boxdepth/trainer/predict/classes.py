"""The classes of a checkpoint, and their ids on a data set: by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from boxdepth.depthgen.store import Category, DataError
from boxdepth.trainer.data.categories import differences, ids_by_name, listed, shown


def recorded_classes(run: Mapping[str, Any]) -> tuple[Category, ...] | None:
    """The classes in what a checkpoint says of its run; None if it doesn't say."""
    rows = run.get("categories")
    try:
        return (
            tuple(Category(id=int(row["id"]), name=str(row["name"])) for row in rows or ()) or None
        )
    except (KeyError, TypeError, ValueError):
        return None


def category_ids_for(
    learnt: Sequence[Category], there: Sequence[Category], *, where: str
) -> tuple[tuple[int | None, ...], list[str]]:
    """Ids by name for what is predicted on a data set, and what a person should know of it.

    Raises:
        DataError: no class of it is learnt.
    """
    ids = ids_by_name(learnt, there)
    if not any(number is not None for number in ids):
        raise DataError(
            f"{where}: none of its classes ({_names(there)}) is learnt ({_names(learnt)}); classes "
            "go by name: rename them in the annotations, or take another data set"
        )
    return ids, differences(learnt, there, where=where)


def _names(classes: Sequence[Category]) -> str:
    return listed([shown(category.name) for category in classes])
