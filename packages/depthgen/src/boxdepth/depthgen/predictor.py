"""Transformers' depth estimators behind one function: images -> depth on the store's grid."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
import transformers
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from boxdepth.depthgen.adapters import import_adapter, load_adapted, predict_adapted
from boxdepth.depthgen.loading import load_model
from boxdepth.depthgen.models import ADAPTED, KindName, ModelFiles, SignName, output_meaning
from boxdepth.depthgen.preprocess import Inside, Preprocessing, inside_box, zeros_around
from boxdepth.depthgen.processor import Aspect, read_preprocessing
from boxdepth.depthgen.store.errors import ConfigError, DataError
from boxdepth.depthgen.store.schema import Kind, Sign

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]

_WHOLE: Inside = (0.0, 0.0, 1.0, 1.0)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Depth of one batch.

    Attributes:
        depth: On the grid, in the model's own sense; not finite where the model failed.
        redone: Which images came out non-finite in half precision and were computed again in fp32.
    """

    depth: Float32[np.ndarray, "b rows columns"]
    redone: tuple[bool, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A depth model, ready to be used, with everything that decides its numbers."""

    model: Any
    files: ModelFiles
    preprocessing: Preprocessing
    kind: Kind
    sign: Sign
    device: torch.device
    precision: Precision

    def provenance(self) -> dict[str, Any]:
        """What the store remembers of the model."""
        return {
            "model": self.files.label,
            "revision": self.files.revision,
            "weights_sha256": self.files.weights_sha256,
            "model_type": self.files.config.get("model_type"),
            "licence": self.files.named.licence if self.files.named else "see the model",
            "preprocessing": self.preprocessing.to_json(),
            "precision": self.precision,
            "device": self.device.type,
            "versions": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }


def load_predictor(
    files: ModelFiles,
    *,
    aspect: Aspect | None = None,
    kind: KindName | None = None,
    sign: SignName | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
) -> Predictor:
    """Load a model and demand that every weight is there, fits and is finite.

    Args:
        aspect: ``None`` leaves it to the model's own processor.
        kind: What the output is; ``None`` takes what the model's table or configuration says.
        sign: Whether near or far is large in it; ``None`` follows from the kind.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: Of the matrix products; weights stay in fp32.

    Raises:
        ConfigError: The device isn't there, the model cannot keep the aspect, or nothing says what
            its output means.
        DataError: Not a depth model, or weights are missing, left over or not finite.
    """
    chosen = choose_device(device)
    if files.config.get("model_type") == ADAPTED:
        return _load_adapted(files, kind, sign, chosen, precision=precision, aspect=aspect)
    depth_kind, depth_sign = output_meaning(files, kind=kind, sign=sign)
    settings = _preprocessing(files, aspect)
    model = load_model(files).to(chosen).eval().requires_grad_(False)
    return Predictor(
        model=model,
        files=files,
        preprocessing=settings,
        kind=depth_kind,
        sign=depth_sign,
        device=chosen,
        precision=precision,
    )


def predict_depth(
    predictor: Predictor,
    images: Sequence[UInt8[np.ndarray, "rows_in columns_in 3"]],
    *,
    grid: tuple[int, int],
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Prediction:
    """Predict the depth of images that are resized for the model already, all to one size.

    An image whose depth comes out non-finite in half precision is computed again in fp32.

    Args:
        grid: (rows, columns) of the result; bilinear with half-pixel centres, antialiased.
        sizes: (height, width) of each image as it was before it was resized, from which the width
            of a mirrored margin follows; ``None``: as large as it is now.

    Raises:
        DataError: The model takes no input of this size.
    """
    settings = predictor.preprocessing
    if settings.processor == ADAPTED:
        maps = predict_adapted(predictor.model, images, label=predictor.files.label)
        whole = [
            _on_grid(torch.from_numpy(item)[None], [_WHOLE], grid=grid)[0].numpy() for item in maps
        ]
        return Prediction(depth=np.stack(whole), redone=(False,) * len(images))
    pixels = torch.from_numpy(np.stack(images)).to(predictor.device)
    inputs = _padded(_normalise(pixels, settings), settings)
    originals = sizes or [(image.shape[0], image.shape[1]) for image in images]
    inside = [inside_box(*size, settings) for size in originals]
    depth = _on_grid(_run(predictor, inputs, precision=predictor.precision), inside, grid=grid)
    redone = torch.zeros(len(images), dtype=torch.bool)
    if predictor.precision != "fp32":
        redone = ~torch.isfinite(depth).flatten(1).all(dim=1).cpu()
        for index in redone.nonzero().flatten().tolist():
            again = _run(predictor, inputs[index : index + 1], precision="fp32")
            depth[index] = _on_grid(again, inside[index : index + 1], grid=grid)[0]
    return Prediction(depth=depth.cpu().numpy(), redone=tuple(bool(value) for value in redone))


def _load_adapted(
    files: ModelFiles,
    kind: KindName | None,
    sign: SignName | None,
    device: torch.device,
    *,
    precision: Precision,
    aspect: Aspect | None,
) -> Predictor:
    """A model outside transformers: it prepares its inputs itself."""
    if precision != "fp32" or aspect is not None:
        raise ConfigError(
            f"model {files.label}: an adapter prepares its inputs itself; leave --precision and "
            "--aspect out"
        )
    module = str(files.config["adapter"])
    own: KindName = import_adapter(module).KIND
    meaning = output_meaning(files, kind=kind or own, sign=sign)
    native = Preprocessing(
        height=384, width=384, multiple=1, aspect="native", resample=2, rescale=1.0,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), processor=ADAPTED,
    )  # fmt: skip
    return Predictor(
        model=load_adapted(module, files.folder, device=str(device)),
        files=files,
        preprocessing=native,
        kind=meaning[0],
        sign=meaning[1],
        device=device,
        precision=precision,
    )


def choose_device(name: str) -> torch.device:
    """Turn ``--device`` into a device that is there.

    Raises:
        ConfigError: It is not.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r}: auto, cpu, cuda, cuda:N or mps expected") from error
    missing_cuda = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    missing_mps = device.type == "mps" and not torch.backends.mps.is_available()
    if missing_cuda or missing_mps or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"--device {name}: there is no such device here; try --device auto")
    return device


def _run(
    predictor: Predictor,
    inputs: Float[Tensor, "b 3 rows_in columns_in"],
    *,
    precision: Precision,
) -> Float32[Tensor, "b rows_out columns_out"]:
    half = _DTYPES.get(precision)
    device = inputs.device.type
    autocast: Any = torch.autocast(device, dtype=half) if half else nullcontext()
    try:
        with torch.inference_mode(), autocast:
            depth: Tensor = predictor.model(pixel_values=inputs).predicted_depth
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except (ValueError, RuntimeError) as error:
        rows, columns = inputs.shape[-2:]
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise DataError(
            f"model {predictor.files.label} cannot take an input of {rows}x{columns} pixels "
            f"({reason}); its preprocessor_config.json and config.json do not fit together"
        ) from error
    return depth.float()


def _on_grid(
    depth: Float32[Tensor, "b rows_out columns_out"],
    inside: Sequence[Inside],
    *,
    grid: tuple[int, int],
) -> Float32[Tensor, "b rows columns"]:
    """Bring the part of each map that is image onto the grid."""
    if all(part == _WHOLE for part in inside):
        with torch.inference_mode():
            resized = torch.nn.functional.interpolate(
                depth[:, None], size=grid, mode="bilinear", align_corners=False, antialias=True
            )
        return resized[:, 0].clone()
    rows, columns = depth.shape[-2:]
    cut = []
    for plane, (top, left, bottom, right) in zip(depth.cpu().numpy(), inside, strict=True):
        box = (left * columns, top * rows, right * columns, bottom * rows)
        inner = Image.fromarray(plane).resize(
            (grid[1], grid[0]), Image.Resampling.BILINEAR, box=box
        )
        cut.append(np.array(inner, dtype=np.float32))
    return torch.from_numpy(np.stack(cut))


def _padded(
    inputs: Float32[Tensor, "b 3 rows columns"], settings: Preprocessing
) -> Float32[Tensor, "b 3 rows_in columns_in"]:
    rows, columns = zeros_around(inputs.shape[-2], inputs.shape[-1], settings)
    return torch.nn.functional.pad(inputs, (*columns, *rows))


def _normalise(
    pixels: UInt8[Tensor, "b rows columns 3"], settings: Preprocessing
) -> Float32[Tensor, "b 3 rows columns"]:
    mean, std = (
        torch.tensor(values, device=pixels.device).view(1, 3, 1, 1)
        for values in (settings.mean, settings.std)
    )
    scaled = pixels.permute(0, 3, 1, 2).float() * settings.rescale
    return ((scaled - mean) / std).contiguous()


def _keeps_aspect(config: dict[str, Any]) -> bool:
    if config.get("model_type") == "dpt":
        # Plain and hybrid DPT take their position embedding at one size only (transformers 5).
        return bool(config.get("backbone_config")) and not config.get("is_hybrid")
    return config.get("model_type") in ("depth_anything", "zoedepth", "glpn")


def _preprocessing(files: ModelFiles, aspect: Aspect | None) -> Preprocessing:
    able = _keeps_aspect(files.config)
    if aspect == "keep" and not able:
        raise ConfigError(f"model {files.label} takes square inputs only; use --aspect square")

    def read(aspect: Aspect | None) -> Preprocessing:
        return read_preprocessing(
            files.processor,
            label=files.label,
            model_type=str(files.config.get("model_type")),
            aspect=aspect,
            patch=_patch_size(files.config),
        )

    settings = read(aspect)
    if able or settings.aspect == "square":
        return settings
    if settings.aspect == "native":
        raise DataError(
            f"model {files.label} takes square inputs only, and its preprocessor_config.json "
            "resizes nothing (do_resize false): the two do not fit together"
        )
    return read("square")


def _patch_size(config: dict[str, Any]) -> int:
    backbone = config.get("backbone_config") or {}
    value = backbone.get("patch_size") or config.get("patch_size") or 1
    return int(value[0] if isinstance(value, list) else value)
