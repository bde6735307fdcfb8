"""One table names, types and describes every array; what is written and documented follows it."""

from pathlib import Path

import zarr

from boxdepth.depthgen.store import write_store
from boxdepth.depthgen.store.schema import ARRAYS, markdown_table

from .conftest import content

_DOCS = Path(__file__).parents[2] / "docs" / "store-format.md"


def test_the_documented_table_is_the_schema() -> None:
    assert markdown_table() in _DOCS.read_text()


def test_a_written_store_has_the_arrays_of_the_schema_and_no_others(tmp_path: Path) -> None:
    from dataclasses import replace

    given = content(5)
    given["records"] = [
        replace(r, masks=({"size": [48, 64], "counts": "ab"},) * len(r.labels))
        for r in given["records"]
    ]
    for masks in (False, True):
        path = write_store(tmp_path / f"{masks}.zarr", **given, unit=2, masks=masks)
        group = zarr.open_group(path, mode="r")
        written = {name: array for name, array in group.members(None) if hasattr(array, "dtype")}
        present = (None, "masks") if masks else (None,)
        expected = {array.name: array for array in ARRAYS if array.optional in present}
        assert set(written) == set(expected)
        for name, array in written.items():
            assert str(array.dtype) == expected[name].dtype
            assert array.ndim == len(expected[name].dims)


def test_names_of_arrays_stand_in_one_module_only() -> None:
    """Layout, units and readers may use a name, but types and shapes come from the table."""
    store = Path(__file__).parents[2] / "packages/depthgen/src/boxdepth/depthgen/store"
    for file in store.glob("*.py"):
        if file.name != "schema.py":
            assert not any(f'"{array.dtype}"' in file.read_text() for array in ARRAYS), file.name
