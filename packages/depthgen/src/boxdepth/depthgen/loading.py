"""Depth models of transformers from their files, with every weight accounted for."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
import transformers

from boxdepth.depthgen.models import ModelFiles
from boxdepth.depthgen.store.errors import DataError

_CLASSES = {
    "dpt": "DPTForDepthEstimation",
    "depth_anything": "DepthAnythingForDepthEstimation",
    "zoedepth": "ZoeDepthForDepthEstimation",
    "depth_pro": "DepthProForDepthEstimation",
    "glpn": "GLPNForDepthEstimation",
}
_NEVER_USED = re.compile(r"neck\.fusion_stage\.layers\.0\.residual_layer1\.")
"""The first fusion layer has no residual input: published DPT files lack these, rightly."""


def load_model(files: ModelFiles) -> Any:
    """Load a depth model in fp32 and demand that every weight is there, fits and is finite.

    Raises:
        DataError: Not a depth model that we know, or its weights are not all there and sound.
    """
    kind = files.config.get("model_type")
    if kind not in _CLASSES:
        raise DataError(
            f"model {files.label}: model_type {kind!r} is not one of {', '.join(_CLASSES)}"
        )
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, info = _from_files(getattr(transformers, _CLASSES[kind]), files)
    except DataError:
        raise
    except Exception as error:  # the loader raises whatever its parts raise
        reason = str(error).strip().splitlines()
        raise DataError(
            f"model {files.label}: cannot be loaded ({reason[0] if reason else error!r})"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    _check_weights(model, info, label=files.label)
    return model


def _from_files(model_class: Any, files: ModelFiles) -> tuple[Any, dict[str, Any]]:
    settings = {"trust_remote_code": False, "dtype": torch.float32, "output_loading_info": True}
    if files.weights[0].suffix == ".safetensors":
        loaded = model_class.from_pretrained(
            files.folder, local_files_only=True, use_safetensors=True, **settings
        )
    else:
        config = model_class.config_class.from_pretrained(files.folder, local_files_only=True)
        state: dict[str, Any] = {}
        for file in files.weights:
            state |= _read_bin(file, label=files.label)
        loaded = model_class.from_pretrained(None, config=config, state_dict=state, **settings)
    model, info = loaded
    return model, info


def _read_bin(file: Path, *, label: str) -> dict[str, torch.Tensor]:
    """Tensors of a ``pytorch_model.bin``: nothing but tensors is built, nothing is unpacked.

    Raises:
        DataError: Anything else is in it, or it claims to be larger than it is.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > file.stat().st_size:
            raise DataError(f"model {label}: {file.name} is compressed, which torch never writes")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the file makes its reader raise
        asked = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        first = (str(error).strip() or repr(error)).splitlines()[0]
        reason = f"it asks for {asked[1]}" if asked else first
        raise DataError(
            f"model {label}: {file.name} holds more than tensors, or is damaged ({reason}); "
            "convert it where it comes from (save_pretrained writes safetensors)"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise DataError(f"model {label}: {file.name} is no table of tensors")
    return {str(name): value for name, value in state.items()}


def _check_weights(model: Any, info: dict[str, Any], *, label: str) -> None:
    problems = [
        f"{what.removesuffix('_keys')}: {name}"
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for name in sorted(str(item) for item in info.get(what) or ())
        if not (what == "missing_keys" and _NEVER_USED.match(name))
    ]
    problems += [str(message) for message in info.get("error_msgs") or ()]
    unused = {name for name in info.get("missing_keys") or () if _NEVER_USED.match(name)}
    problems += [
        f"not finite: {name}"
        for name, tensor in model.state_dict().items()
        if name not in unused and not bool(torch.isfinite(tensor).all())
    ]
    if problems:
        raise DataError(
            f"model {label}: {len(problems)} of its weights do not fit "
            f"({'; '.join(problems[:5])}); the depth would be noise; fetch the model again"
        )
