"""The depth models that have a name, and how a model is found: by name, folder or hub id."""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from boxdepth.depthgen.store.errors import (
    ConfigError,
    DataError,
    EnvironmentFailure,
    MissingExtraError,
)
from boxdepth.depthgen.store.schema import Kind, Sign

DEFAULT_MODEL: Final = "dpt-scenes-tiny"
log = logging.getLogger(__name__)

AUTO: Final = "auto"
RECOMMENDED: Final = "da2-small"
"""What ``auto`` takes for photographs: the best of the small ones with a free licence."""

SCENES_ONLY: Final = (
    "depth by the embedded model, which has seen drawn scenes only; for photographs take another "
    f"one, such as --model {RECOMMENDED}"
)
FILE_PATTERNS: Final = ("config.json", "preprocessor_config.json", "*.safetensors", "*.index.json")
ADAPTED: Final = "adapter"
_ADAPTER_PREFIX: Final = "adapter:"
_ADAPTED_SUFFIXES: Final = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx"})
_BIN_PATTERN: Final = "pytorch_model*.bin"
_EMBEDDED: Final = Path(__file__).parent / "weights"
_METRIC_DPT: Final = re.compile(r"facebook/dpt-dinov2-\w+-(nyu|kitti)")
"""The one family of DPT on the hub that was trained on metres; its configuration does not say."""

KindName = Literal["inverse", "metric"]
SignName = Literal["near-large", "far-large"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """A depth model with a name of its own.

    Attributes:
        name: What ``--model`` takes.
        hub_id: ``organisation/repository``; ``None`` for the model that is part of this package.
        parameters: Number of parameters in millions, rounded.
        licence: Licence of the weights.
        commercial: False if the licence forbids commercial use.
        kind: What its output is.
        sign: Whether near or far is large in its output.
        note: When to choose it.
    """

    name: str
    hub_id: str | None
    parameters: float
    licence: str
    commercial: bool
    kind: Kind
    sign: Sign
    note: str


def _relative(
    name: str,
    hub_id: str | None,
    parameters: float,
    licence: str,
    note: str,
    commercial: bool = True,
) -> NamedModel:
    return NamedModel(
        name=name,
        hub_id=hub_id,
        parameters=parameters,
        licence=licence,
        commercial=commercial,
        kind="inverse_relative",
        sign="near_is_large",
        note=note,
    )


MODELS: Final = (
    _relative("dpt-scenes-tiny", None, 2, "Apache-2.0", "embedded; trained on drawn scenes only"),
    _relative("dpt-large", "Intel/dpt-large", 340, "Apache-2.0", "the paper's family"),
    _relative("dpt-hybrid", "Intel/dpt-hybrid-midas", 120, "Apache-2.0", "the paper's weights"),
    _relative("dpt-beit-large", "Intel/dpt-beit-large-512", 345, "MIT", "best of MiDaS 3.1"),
    _relative("dpt-swinv2-tiny", "Intel/dpt-swinv2-tiny-256", 42, "MIT", "small, for CPUs"),
    _relative("da1-small", "LiheYoung/depth-anything-small-hf", 25, "Apache-2.0", "fast"),
    _relative("da1-base", "LiheYoung/depth-anything-base-hf", 97, "Apache-2.0", "in between"),
    _relative(
        "da1-large", "LiheYoung/depth-anything-large-hf", 335, "Apache-2.0", "best permissive one"
    ),
    _relative(
        "da2-small",
        "depth-anything/Depth-Anything-V2-Small-hf",
        25,
        "Apache-2.0",
        "recommended for photographs",
    ),
    _relative(
        "da2-base",
        "depth-anything/Depth-Anything-V2-Base-hf",
        97,
        "CC-BY-NC-4.0",
        "not for commercial use",
        commercial=False,
    ),
    _relative(
        "da2-large",
        "depth-anything/Depth-Anything-V2-Large-hf",
        335,
        "CC-BY-NC-4.0",
        "not for commercial use",
        commercial=False,
    ),
    NamedModel(
        name="zoedepth",
        hub_id="Intel/zoedepth-nyu-kitti",
        parameters=345,
        licence="MIT",
        commercial=True,
        kind="metric",
        sign="far_is_large",
        note="metres, street and indoor",
    ),
    _relative(
        "depth-pro",
        "apple/DepthPro-hf",
        950,
        "Apple research licence",
        "sharp edges, 1536 px, slow",
        commercial=False,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model's files on this machine, and where they are from.

    Attributes:
        label: What provenance calls the model; never a path.
        revision: Commit of the hub repository; ``"embedded"`` or ``"local"`` otherwise.
        weights: The weight files, all of one kind: safetensors, or else ``pytorch_model*.bin``.
        weights_sha256: Hash over all weight files.
        named: The table's entry, if it has one.
    """

    folder: Path
    label: str
    revision: str
    weights: tuple[Path, ...]
    weights_sha256: str
    config: dict[str, Any]
    processor: dict[str, Any]
    named: NamedModel | None


def find_model(
    model: str, *, revision: str | None = None, allow_noncommercial: bool = False
) -> ModelFiles:
    """Bring a model's files here.

    Args:
        model: A name from ``MODELS``, a folder, ``adapter:MODULE:FOLDER`` (``adapters``), or
            ``hf:ORGANISATION/REPOSITORY``. A hub id without
            ``hf:`` is refused, for a folder of that name would silently take its place.
        revision: Commit, tag or branch of the hub repository.
        allow_noncommercial: Needed for weights whose licence forbids commercial use.

    Raises:
        ConfigError: Unknown name, a licence that is not accepted, a revision where there is none.
        DataError: Files are missing or damaged.
        EnvironmentFailure: The hub cannot be reached.
    """
    named = next(
        (
            entry
            for entry in MODELS
            if model in (entry.name, f"hf:{entry.hub_id}" if entry.hub_id else None)
        ),
        None,
    )
    if named and not named.commercial and not allow_noncommercial:
        raise ConfigError(
            f"model {model}: its licence ({named.licence}) forbids commercial use; "
            "accept that with --allow-noncommercial, or take another one (depthgen models)"
        )
    if model.startswith(_ADAPTER_PREFIX):
        return _adapted(model)
    hub_id = named.hub_id if named else None
    if model.startswith("hf:"):
        hub_id = model.removeprefix("hf:")
    if hub_id is not None:
        folder = _fetch(hub_id, revision=revision)
        commit = folder.name if _COMMIT.fullmatch(folder.name) else "unknown"
        return _inspect(folder, label=hub_id, revision=commit, named=named)
    if revision is not None:
        raise ConfigError(f"--revision belongs to hub models, {model!r} is none")
    if named:
        return _inspect(_EMBEDDED / named.name, label=named.name, revision="embedded", named=named)
    folder = Path(model)
    if not folder.is_dir():
        names = ", ".join(entry.name for entry in MODELS)
        raise ConfigError(
            f"unknown model {model!r}: neither a name ({names}) nor a folder; "
            "a model of the hub is written hf:ORGANISATION/REPOSITORY"
        )
    return _inspect(folder, label=folder.resolve().name, revision="local", named=None)


def _adapted(model: str) -> ModelFiles:
    """The files of ``adapter:MODULE:FOLDER``."""
    module, _, place = model.removeprefix(_ADAPTER_PREFIX).partition(":")
    folder = Path(place).expanduser()
    if not module or not place or not folder.is_dir():
        raise ConfigError(f"--model {model}: adapter:MODULE:FOLDER is expected, FOLDER a folder")
    weights = sorted(file for file in folder.rglob("*") if file.suffix in _ADAPTED_SUFFIXES)
    return ModelFiles(
        folder=folder,
        label=f"{Path(module).stem if module.endswith('.py') else module}:{folder.resolve().name}",
        revision="local",
        weights=tuple(weights),
        weights_sha256=_sha256(weights),
        config={"model_type": ADAPTED, "adapter": module},
        processor={},
        named=None,
    )


def output_meaning(
    files: ModelFiles, *, kind: KindName | None = None, sign: SignName | None = None
) -> tuple[Kind, Sign]:
    """What a model's output is: inverse depth or metres, and whether near or far is large.

    Known are the models of the table, and those whose ``config.json`` says it
    (``depth_estimation_type``) or whose architecture has one output only. A DPT of unknown origin
    may be either: a wrong guess would swap near and far.

    Args:
        kind: Overrides what is known.
        sign: Overrides what follows from the kind.

    Raises:
        ConfigError: Nothing says what the output is, or metres are said to be large when near.
    """
    known = _known_kind(files)
    if kind is None and known is None:
        raise ConfigError(
            f"model {files.label}: nothing in its configuration says whether its output is inverse "
            "depth (large = near; Intel's DPT, MiDaS) or metres (large = far; trained on NYU or "
            "KITTI); say it: --kind inverse or --kind metric"
        )
    chosen: Kind = known or "inverse_relative"
    if kind is not None:
        chosen = "metric" if kind == "metric" else "inverse_relative"
    if chosen == "metric":
        if sign == "near-large":
            raise ConfigError(
                f"model {files.label}: metres are large when far; --sign near-large belongs to "
                "--kind inverse"
            )
        return chosen, "far_is_large"
    return chosen, "far_is_large" if sign == "far-large" else "near_is_large"


def _known_kind(files: ModelFiles) -> Kind | None:
    if files.named:
        return files.named.kind
    said, architecture = files.config.get("depth_estimation_type"), files.config.get("model_type")
    if said == "metric" or architecture in ("zoedepth", "glpn"):
        return "metric"
    if said == "relative" or architecture == "depth_pro":
        return "inverse_relative"
    if said is None and architecture == "depth_anything":  # the class's own default
        return "inverse_relative"
    return "metric" if _METRIC_DPT.fullmatch(files.label) else None


def need_models() -> None:
    """Make sure that what runs depth models is installed.

    Raises:
        MissingExtraError: It is not.
    """
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"depth models need {' and '.join(missing)}, which are not installed: "
            "pip install 'boxdepth-depthgen[predict]'"
        )


def choose_model(*, drawn: bool) -> str:
    """The model that ``auto`` stands for.

    Drawn scenes take the embedded one, which is made for them. Photographs take the recommended
    one where it is on this machine or the hub answers, else the embedded one.

    Raises:
        MissingExtraError: Depth models are not installed.
    """
    recommended = next(entry for entry in MODELS if entry.name == RECOMMENDED)
    if drawn or recommended.hub_id is None:
        return DEFAULT_MODEL
    if not is_here(recommended):
        try:
            _fetch(recommended.hub_id, revision=None)
        except (ConfigError, EnvironmentFailure) as error:
            log.info("%s", error)
            return DEFAULT_MODEL
    return RECOMMENDED


def is_here(named: NamedModel) -> bool:
    """True if the model's files are on this machine already."""
    if named.hub_id is None:
        return (_EMBEDDED / named.name / "config.json").is_file()
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without the extra, nothing was ever fetched
        return False
    return isinstance(try_to_load_from_cache(named.hub_id, "config.json"), str)


def _fetch(hub_id: str, *, revision: str | None) -> Path:
    need_models()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(FILE_PATTERNS))
        )
        if not any(folder.glob("*.safetensors")):  # Intel/dpt-hybrid-midas has none
            snapshot_download(hub_id, revision=revision, allow_patterns=[_BIN_PATTERN])
        return folder
    except HFValidationError as error:
        raise ConfigError(f"{hub_id!r} is not a hub id (ORGANISATION/REPOSITORY)") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(
            f"hub model {hub_id} (revision {revision or 'main'}) does not exist, or is not public"
        ) from error
    except Exception as error:  # the hub client lets through what its HTTP library raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EnvironmentFailure(
            f"cannot fetch {hub_id} from the Hugging Face hub ({reason}); fetch it where there is "
            "a network (`hf download`) and pass the folder: --model DIR. The embedded model needs "
            f"no network: --model {DEFAULT_MODEL}"
        ) from error


def _inspect(folder: Path, *, label: str, revision: str, named: NamedModel | None) -> ModelFiles:
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob(_BIN_PATTERN))
    if not weights:
        raise DataError(
            f"model {label}: neither *.safetensors nor {_BIN_PATTERN} in {folder}; other formats "
            "can run code when opened, convert them first (save_pretrained writes safetensors)"
        )
    return ModelFiles(
        folder=folder,
        label=label,
        revision=revision,
        weights=tuple(weights),
        weights_sha256=_sha256(weights),
        config=_read_object(folder / "config.json", label),
        processor=_read_object(folder / "preprocessor_config.json", label),
        named=named,
    )


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read_object(path: Path, label: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"model {label}: {path}: {error.strerror}; a model needs it") from error
    except ValueError as error:
        raise DataError(f"model {label}: {path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"model {label}: {path}: an object is expected")
    return value
