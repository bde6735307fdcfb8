"""A checkpoint is whole or not there, and opening one runs no code."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from boxdepth.trainer.engine import checkpoint as module
from boxdepth.trainer.engine.checkpoint import (
    Checkpoint,
    CheckpointError,
    DiskFullError,
    find_checkpoint,
    load_checkpoint,
    load_newest,
    prune,
    save_checkpoint,
)


def made(step: int, *, teacher: bool = False) -> Checkpoint:
    torch.manual_seed(step)
    weights = {"a.weight": torch.randn(4, 3), "n": torch.tensor(step)}
    return Checkpoint(
        step=step,
        model=weights,
        teacher={"a.weight": torch.zeros(4, 3), "n": torch.tensor(0)} if teacher else None,
        state={"optimizer": {"m": torch.ones(2)}, "progress": {"step": step, "scores": None}},
        run={"config": {"name": "x"}, "categories": []},
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


@pytest.mark.parametrize("teacher", [False, True])
def test_what_was_saved_comes_back_bit_for_bit(root: Path, teacher: bool) -> None:
    saved = made(7, teacher=teacher)
    back = load_checkpoint(save_checkpoint(root, saved))
    assert (back.step, back.run) == (7, saved.run)
    assert all(torch.equal(back.model[k], v) for k, v in saved.model.items())
    assert (back.teacher is None) == (not teacher)
    assert back.state["progress"] == {"step": 7, "scores": None}
    assert torch.equal(back.state["optimizer"]["m"], torch.ones(2))


def test_a_saved_tensor_is_a_copy(root: Path) -> None:
    saved = made(1)
    folder = save_checkpoint(root, saved)
    saved.model["a.weight"].zero_()
    assert load_checkpoint(folder).model["a.weight"].abs().sum() > 0


def test_every_flipped_or_missing_byte_is_noticed(root: Path) -> None:
    folder = save_checkpoint(root, made(3, teacher=True))
    for name in ("model.safetensors", "teacher.safetensors", "state.pt"):
        whole = (folder / name).read_bytes()
        for at in range(0, len(whole), max(len(whole) // 25, 1)):
            (folder / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match=f"{name}: damaged"):
                load_checkpoint(folder)
            (folder / name).write_bytes(whole[:at])
            with pytest.raises(CheckpointError, match=f"{name}: damaged"):
                load_checkpoint(folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(folder)
        (folder / name).write_bytes(whole)
    load_checkpoint(folder)


def test_the_newest_whole_one_is_taken_and_the_damaged_one_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(root, made(1))
    newest = save_checkpoint(root, made(2))
    (newest / "state.pt").write_bytes(b"")
    found = load_newest(root)
    assert found is not None
    assert found[1].step == 1
    assert "step-0000002" in caplog.text
    shutil.rmtree(root / "step-0000001")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load_newest(root)


def test_no_checkpoint_is_none(root: Path) -> None:
    assert load_newest(root) is None


def test_the_newest_and_the_best_are_kept(root: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(root, made(step))
        if step == 2:
            (root.parent / "best").write_text("step-0000002\n0.5\n")
        prune(root, keep=2)
    assert [p.name for p in sorted(root.iterdir())] == [
        "step-0000002", "step-0000004", "step-0000005",
    ]  # fmt: skip
    assert find_checkpoint(root.parent).name == "step-0000002"
    (root.parent / "best").unlink()
    assert find_checkpoint(root.parent).name == "step-0000005"


def test_a_folder_without_one_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a run folder nor a checkpoint"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_full_disk_leaves_the_old_one_and_says_how_much_is_needed(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save_checkpoint(root, made(1))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if call == "open":
            patch.setattr(module, "_write_synced", full)
        elif call == "replace":
            patch.setattr(Path, "rename", full)
        else:
            patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match=r"cannot save a checkpoint of .* MB .*--resume"):
            save_checkpoint(root, made(2))
    assert [p.name for p in root.iterdir()] == ["step-0000001"]
    found = load_newest(root)
    assert found is not None
    assert found[1].step == 1


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.canary),))


def test_a_pickle_in_a_checkpoint_is_not_run(root: Path, tmp_path: Path) -> None:
    folder = save_checkpoint(root, made(1))
    canary = tmp_path / "canary"
    buffer = io.BytesIO()
    torch.save({"optimizer": Payload(canary)}, buffer)
    replace(folder, "state.pt", buffer.getvalue())
    with pytest.raises(CheckpointError, match="not a training state"):
        load_checkpoint(folder)
    assert not canary.exists()


def test_a_compressed_state_is_refused_before_it_is_unpacked(root: Path) -> None:
    folder = save_checkpoint(root, made(1))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 50_000_000)
    replace(folder, "state.pt", buffer.getvalue())
    with pytest.raises(CheckpointError, match="compressed members"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"files": {"../../etc/passwd": {}}}, "unknown file 'passwd'"),
        ({"files": {}}, "lists no model.safetensors"),
    ],
)
def test_a_strange_manifest_is_refused(root: Path, change: dict, said: str) -> None:
    folder = save_checkpoint(root, made(1))
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(folder)


def replace(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes into a checkpoint, with a hash that fits them."""
    manifest = json.loads((folder / "run.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "run.json").write_text(json.dumps(manifest))
    (folder / name).write_bytes(data)
