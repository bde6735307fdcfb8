"""Classes of two data sets are compared by their names: a row of a network means a name."""

import unicodedata
from collections.abc import Sequence

from boxdepth.depthgen.store import Category
from boxdepth.trainer.words import counted

SHOWN = 5


def rows_by_name(wanted: Sequence[Category], known: Sequence[Category]) -> tuple[int | None, ...]:
    """For each of ``wanted`` the row of ``known`` that has its name; None: no row has.

    Each row is given once. Of several rows of one name that of the same id is taken, else the
    first that is left (Roboflow's exports name their root like one of its classes).
    """
    left: dict[str, list[int]] = {}
    for row, category in enumerate(known):
        left.setdefault(_key(category), []).append(row)
    found: dict[int, int] = {}
    for same_id in (True, False):
        for place, category in enumerate(wanted):
            rows = left.get(_key(category), [])
            fits = [row for row in rows if known[row].id == category.id or not same_id]
            if place not in found and fits:
                found[place] = fits[0]
                rows.remove(fits[0])
    return tuple(found.get(place) for place in range(len(wanted)))


def ids_by_name(learnt: Sequence[Category], there: Sequence[Category]) -> tuple[int | None, ...]:
    """For each learnt class the id that a data set gives to its name; None: it has no such."""
    return tuple(None if row is None else there[row].id for row in rows_by_name(learnt, there))


def same_classes(a: Sequence[Category], b: Sequence[Category]) -> bool:
    """Whether every row means the same class."""
    return [_key(category) for category in a] == [_key(category) for category in b]


def differences(learnt: Sequence[Category], there: Sequence[Category], *, where: str) -> list[str]:
    """What a person should know before results on another data set are written or scored.

    Args:
        learnt: classes of the network.
        there: classes of the data set that is predicted on.
        where: what the data set is called.
    """
    rows = rows_by_name(learnt, there)
    absent = [category.name for category, row in zip(learnt, rows, strict=True) if row is None]
    unknown = [c.name for row, c in enumerate(there) if row not in rows]
    moved = [
        f"{shown(category.name)} (id {category.id} in training, {there[row].id} there)"
        for category, row in zip(learnt, rows, strict=True)
        if row is not None and there[row].id != category.id
    ]
    said = []
    if moved:
        said.append(
            f"{where} has other ids for the classes learnt: {listed(moved)}; classes go by name, "
            "predictions carry its ids"
        )
    if absent:
        names = listed([shown(name) for name in absent])
        said.append(
            f"{where} does not list {_classes(absent)} learnt: {names}; predictions of "
            f"{'it' if len(absent) == 1 else 'them'} are left out there"
        )
    if unknown:
        names = listed([shown(name) for name in unknown])
        said.append(
            f"{where} has {_classes(unknown)} that {'is' if len(unknown) == 1 else 'are'} not "
            f"learnt: {names}; nothing is predicted there for "
            f"{'it' if len(unknown) == 1 else 'them'}"
        )
    return said


def shown(name: str) -> str:
    """A name in quotes."""
    return f"'{name}'"


def listed(words: Sequence[str]) -> str:
    """The first words and how many more there are."""
    more = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _classes(names: Sequence[str]) -> str:
    return counted(len(names), "class", "es")


def _key(category: Category) -> str:
    return unicodedata.normalize("NFC", category.name).strip()
