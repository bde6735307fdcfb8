"""A checkpoint: one folder, committed by one rename, checked by hash, opened without running code.

step-0000123/
  model.safetensors     the student
  teacher.safetensors   the EMA teacher, once there is one
  state.pt              optimiser, random state, counters; read with weights_only=True
  run.json              step, resolved config, versions, size and SHA-256 of the files above
"""

import hashlib
import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from boxdepth.trainer.errors import CheckpointError, DiskFullError, WriteError
from boxdepth.trainer.model.weight_files import read_failure

log = logging.getLogger(__name__)

FORMAT = 1
MODEL, TEACHER, STATE, RUN = "model.safetensors", "teacher.safetensors", "state.pt", "run.json"
LATEST, BEST = "latest", "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped."""

    step: int
    """Steps done; the next one has this (0-based) number."""
    model: dict[str, Tensor]
    teacher: dict[str, Tensor] | None = None
    state: dict[str, Any] = field(default_factory=dict)
    """Tensors, numbers, text, lists and dicts only."""
    run: dict[str, Any] = field(default_factory=dict)
    """JSON: config, versions, dataset fingerprint, command."""


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"step-{step:07d}"


def save_checkpoint(root: Path, checkpoint: Checkpoint) -> Path:
    """Write beside the final place, sync, rename; a kill at any moment leaves the older ones whole.

    Raises:
        DiskFullError: says how much is needed and how much there is.
    """
    final = step_folder(root, checkpoint.step)
    temporary = root / f".{final.name}.partial"
    contents = {MODEL: save_safetensors(_contiguous(checkpoint.model)), STATE: _pack(checkpoint)}
    if checkpoint.teacher is not None:
        contents[TEACHER] = save_safetensors(_contiguous(checkpoint.teacher))
    files = {name: {"bytes": len(d), "sha256": _sha256(d)} for name, d in contents.items()}
    manifest = {"format": FORMAT, "step": checkpoint.step, "files": files} | checkpoint.run
    contents[RUN] = json.dumps(manifest, indent=1, sort_keys=True).encode()
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, data in contents.items():
            _write_synced(temporary / name, data)
        _sync_folder(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync_folder(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _explain(error, root, sum(map(len, contents.values()))) from error
    point(root.parent / LATEST, final)
    return final


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint back, every byte checked against its hash.

    Raises:
        CheckpointError: missing, damaged, or of a newer format.
    """
    manifest = read_run_json(folder)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(
            f"{folder / RUN}: format {manifest.get('format')!r}, this version reads {FORMAT}"
        )
    contents = {
        name: _read_checked(folder / name, meta) for name, meta in manifest["files"].items()
    }
    if MODEL not in contents or STATE not in contents:
        raise CheckpointError(f"{folder}: lists no {MODEL} and {STATE}")
    step = manifest.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CheckpointError(
            f"{folder / RUN}: step is {step!r}, expected the number of steps done"
        )
    return Checkpoint(
        step=step,
        model=_load_weights(folder / MODEL, contents[MODEL]),
        teacher=_load_weights(folder / TEACHER, contents[TEACHER]) if TEACHER in contents else None,
        state=_unpack(folder / STATE, contents[STATE]),
        run={k: v for k, v in manifest.items() if k not in ("format", "step", "files")},
    )


def load_newest(root: Path) -> tuple[Path, Checkpoint] | None:
    """The newest whole checkpoint of a run; a damaged one is named in the log and passed over.

    Raises:
        CheckpointError: there are checkpoints, but none is whole.
    """
    folders = sorted(root.glob("step-*"), reverse=True)
    problems = []
    for folder in folders:
        try:
            return folder, load_checkpoint(folder)
        except CheckpointError as error:
            log.warning("passing over a damaged checkpoint: %s", error)
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"{root}: no whole checkpoint:\n  " + "\n  ".join(problems))
    return None


def find_checkpoint(path: Path) -> Path:
    """The checkpoint meant by a run folder (best, else latest) or by a checkpoint folder.

    Raises:
        CheckpointError: there is none.
    """
    if (path / MODEL).is_file():
        return path
    for name in (BEST, LATEST):
        folder = path / "checkpoints" / pointed(path / name)
        if folder.name.startswith("step-") and (folder / MODEL).is_file():
            return folder
    found = sorted((path / "checkpoints").glob("step-*")) if path.is_dir() else []
    if found:
        return found[-1]
    raise CheckpointError(
        f"{path}: neither a run folder nor a checkpoint (expected {MODEL}, or checkpoints/step-*)"
    )


def read_run_json(folder: Path) -> dict[str, Any]:
    """What a checkpoint says about itself.

    Raises:
        CheckpointError: no readable run.json.
    """
    path = folder / RUN
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return manifest


def prune(root: Path, *, keep: int) -> None:
    """Delete all but the ``keep`` newest checkpoints and the best; leftovers of kills too."""
    for leftover in root.glob(".step-*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    best = pointed(root.parent / BEST)
    for folder in sorted(root.glob("step-*"))[:-keep]:
        if folder.name != best:
            shutil.rmtree(folder, ignore_errors=True)


def pointed(pointer: Path) -> str:
    """The name that a pointer file holds; empty where there is none."""
    try:
        words = pointer.read_text(encoding="utf-8", errors="replace").split()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    return words[0] if words else ""


def point(pointer: Path, folder: Path) -> None:
    """Make a pointer file (`latest`, `best`) name a checkpoint, atomically."""
    write_atomically(pointer, (folder.name + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: the file is the old one or the new one, whole.

    Raises:
        WriteError: names the file, how much was to be written and how much room there is.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        _write_synced(temporary, data)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WriteError(
            f"{path}: cannot write {len(data) / 1e6:.1f} MB ({_room(path.parent)}): "
            f"{error.strerror or error}"
        ) from error


def _pack(checkpoint: Checkpoint) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint.state, buffer)
    return buffer.getvalue()


def _unpack(path: Path, data: bytes) -> dict[str, Any]:
    """torch's zip holds its members uncompressed; anything else could unpack to any size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            stored = all(m.compress_type == zipfile.ZIP_STORED for m in archive.infolist())
            honest = sum(m.file_size for m in archive.infolist()) <= len(data)
        if not (stored and honest):
            raise CheckpointError(f"{path}: compressed members, not a file that we wrote")
        stream = io.BytesIO(data)
        state = torch.load(stream, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: not a training state: {read_failure(error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: expected a dict, found {type(state).__name__}")
    return state


def _load_weights(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error


def _read_checked(path: Path, meta: Any) -> bytes:
    if path.name not in (MODEL, TEACHER, STATE):
        raise CheckpointError(f"{path.parent / RUN}: lists an unknown file {path.name!r}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    if not isinstance(meta, Mapping):
        raise CheckpointError(f"{path.parent / RUN}: {path.name}: expected its bytes and sha256")
    if len(data) != meta.get("bytes") or _sha256(data) != meta.get("sha256"):
        raise CheckpointError(
            f"{path}: damaged: {len(data)} bytes do not match the recorded size and SHA-256"
        )
    return data


def _contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: OSError, root: Path, needed: int) -> DiskFullError:
    return DiskFullError(
        f"{root}: cannot save a checkpoint of {needed / 1e6:.0f} MB ({_room(root)}): "
        f"{error.strerror or error}; the earlier checkpoints are untouched: make room and repeat "
        "the command with --resume"
    )


def _room(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB free"
    except OSError:
        return "free space unknown"
