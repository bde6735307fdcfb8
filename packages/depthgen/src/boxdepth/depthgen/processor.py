"""A model's ``preprocessor_config.json``: every setting of its processor followed, or refused.

Four processors of transformers prepare the inputs of depth models. They differ in the order of
their steps and in what a missing setting means; both stand here, so that nothing is left to the
defaults of whatever version of a library is installed.
"""

from collections.abc import Mapping
from math import gcd, isfinite
from typing import Any, Final, Literal

from boxdepth.depthgen.preprocess import ANTIALIASED, INTERPOLATIONS, Fit, Padding, Preprocessing
from boxdepth.depthgen.store.errors import ConfigError, DataError

Aspect = Literal["keep", "square"]

_HALF: Final = [0.5, 0.5, 0.5]
_COMMON: Final[dict[str, Any]] = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _HALF,
    "image_std": _HALF,
    "do_pad": False,
    "keep_aspect_ratio": False,
    "ensure_multiple_of": 1,
    "size_divisor": None,
    "resample": 2,
}
PROCESSORS: Final[Mapping[str, Mapping[str, Any]]] = {
    "DPT": _COMMON | {"size": {"height": 384, "width": 384}, "resample": 3},
    "ZoeDepth": _COMMON
    | {
        "size": {"height": 384, "width": 512},
        "do_pad": True,
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 1 / 32,
    },
    "DepthPro": _COMMON | {"size": {"height": 1536, "width": 1536}},
    "GLPN": _COMMON | {"size": None, "do_normalize": None, "size_divisor": 32},
}
"""What a setting means where ``preprocessor_config.json`` does not have it: the class's own."""

_PROCESSOR_OF_MODEL: Final = {"zoedepth": "ZoeDepth", "depth_pro": "DepthPro", "glpn": "GLPN"}
_NO_MATTER: Final = frozenset({"do_convert_rgb", "do_reduce_labels"})
"""Images are RGB already, and labels are none of ours."""


def read_preprocessing(
    processor: Mapping[str, Any],
    *,
    label: str,
    model_type: str,
    aspect: Aspect | None,
    patch: int = 1,
) -> Preprocessing:
    """Read a model's ``preprocessor_config.json`` as its own processor would.

    Args:
        model_type: Of ``config.json``: tells the processor where the file does not name it.
        aspect: Overrides the processor's own; ``None`` leaves it.
        patch: Sides are multiples of this too where the aspect is kept by override.

    Raises:
        DataError: A setting that is not handled, or of a wrong type.
        ConfigError: An aspect that this processor knows nothing of.
    """
    try:
        name = _processor_name(processor, model_type)
        settings = _resolve(processor, name)
        fit = _fit(settings, name=name, aspect=aspect, label=label)
        height, width = _nominal_size(settings["size"], native=fit == "native")
        mean, std = _normalisation(settings)
        return Preprocessing(
            height=height,
            width=width,
            multiple=_multiple(settings, fit=fit, aspect=aspect, patch=patch),
            aspect=fit,
            resample=_resample(settings["resample"], name),
            rescale=_positive(settings, "rescale_factor") if _flag(settings, "do_rescale") else 1.0,
            mean=mean,
            std=std,
            processor=name,
            padding=_padding(settings, name),
            divisor=_divisor(settings) if name == "DPT" and _flag(settings, "do_pad") else 1,
        )
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"model {label}: preprocessor_config.json holds a setting that cannot be followed "
            f"({error}); its depth would not be the model's"
        ) from error


def _processor_name(processor: Mapping[str, Any], model_type: str) -> str:
    given = processor.get("image_processor_type") or processor.get("feature_extractor_type")
    if given is None:
        return _PROCESSOR_OF_MODEL.get(model_type, "DPT")
    name = str(given).removesuffix("Fast").removesuffix("Pil")
    name = name.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if name not in PROCESSORS:
        known = ", ".join(f"{name}ImageProcessor" for name in PROCESSORS)
        raise ValueError(f"processor {given!r} is not one of {known}")
    return name


def _resolve(processor: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of the file over those of the class; ``null`` switches a step off."""
    settings = {**PROCESSORS[name], **processor}
    others = [key for key in settings if key.startswith("do_") and key not in PROCESSORS[name]]
    for key in others:
        if key not in _NO_MATTER and _flag(settings, key):
            raise ValueError(f"{key} is true, and that step is not handled")
    return settings


def _flag(settings: Mapping[str, Any], key: str) -> bool:
    value = settings[key]
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, true or false is expected")
    return bool(value)


def _fit(settings: Mapping[str, Any], *, name: str, aspect: Aspect | None, label: str) -> Fit:
    resizes = _flag(settings, "do_resize")
    if name == "GLPN" or not resizes:
        if aspect is not None:
            raise ConfigError(
                f"model {label}: its processor takes images at their own size; leave --aspect out"
            )
        if name == "ZoeDepth":
            raise ValueError("do_resize is false, which a mirrored margin is not handled without")
        return "native"
    if aspect is not None:
        return aspect
    return "keep" if name != "DepthPro" and _flag(settings, "keep_aspect_ratio") else "square"


def _nominal_size(size: object, *, native: bool) -> tuple[int, int]:
    if native:
        return PROCESSORS["DPT"]["size"]["height"], PROCESSORS["DPT"]["size"]["width"]
    if isinstance(size, Mapping):
        if not {"height", "width"} <= size.keys():
            raise ValueError(f"size is {dict(size)!r}, height and width are expected")
        sides = size["height"], size["width"]
    else:
        sides = size, size
    for side in sides:
        if type(side) is not int or not 1 <= side <= 8192:
            raise ValueError(f"size is {size!r}, sides of 1 to 8192 pixels are expected")
    return sides[0], sides[1]


def _multiple(settings: Mapping[str, Any], *, fit: Fit, aspect: Aspect | None, patch: int) -> float:
    if fit == "native":
        return _divisor(settings) if _flag(settings, "do_resize") else 1
    multiple = settings["ensure_multiple_of"]
    if isinstance(multiple, bool) or not isinstance(multiple, int | float) or not multiple > 0:
        raise ValueError(f"ensure_multiple_of is {multiple!r}, a positive number is expected")
    own = "keep" if _flag(settings, "keep_aspect_ratio") else "square"
    if aspect == "keep" != own:  # the file's multiple was not made for this
        whole = max(1, int(multiple))
        return whole * patch // gcd(whole, patch)
    return multiple


def _divisor(settings: Mapping[str, Any]) -> int:
    value = settings["size_divisor"]
    if type(value) is not int or value < 1:
        raise ValueError(f"size_divisor is {value!r}, a whole number is expected")
    return value


def _padding(settings: Mapping[str, Any], name: str) -> Padding:
    if name in ("GLPN", "DepthPro") or not _flag(settings, "do_pad"):  # those two never pad
        return "none"
    return "zeros" if name == "DPT" else "reflect"


def _resample(value: object, name: str) -> int:
    allowed = range(6) if name in ANTIALIASED else INTERPOLATIONS
    if type(value) is not int or value not in allowed:
        raise ValueError(f"resample is {value!r}, Pillow's number of a filter is expected")
    return value


def _normalisation(
    settings: Mapping[str, Any],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    if not _flag(settings, "do_normalize"):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = (_three(settings[key], key) for key in ("image_mean", "image_std"))
    if min(std) <= 0:
        raise ValueError(f"image_std is {settings['image_std']!r}, positive numbers are expected")
    return mean, std


def _three(value: object, key: str) -> tuple[float, float, float]:
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * 3
    numbers = [float(item) for item in values if type(item) in (int, float) and isfinite(item)]
    if len(values) != 3 or len(numbers) != 3:
        raise ValueError(f"{key} is {value!r}, three numbers are expected")
    return numbers[0], numbers[1], numbers[2]


def _positive(settings: Mapping[str, Any], key: str) -> float:
    value = settings[key]
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"{key} is {value!r}, a positive number is expected")
    return float(value)
