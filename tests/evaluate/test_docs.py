"""The Python that docs/evaluation.md shows runs as it stands."""

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(code: str, small_set: tuple, tmp_path: Path, monkeypatch) -> None:
    truth, results = small_set
    truth["categories"][1]["name"] = "person"
    documents = {"predictions": results, "baseline": results[:-2], "annotations": truth}
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
