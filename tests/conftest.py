"""Fixtures for the whole suite, and the hook that makes every shape annotation a check."""

import functools
import inspect
import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook
from tests.browser import browser, open_page
from typeguard import check_type

__all__ = ["browser", "open_page"]  # fixtures for whoever opens a page

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Started with `&` by a script, Ctrl-C is ignored, here and in every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine may be busy: nothing is a fault because it took long. Nor does a test depend on the day:
# everyone tries the same examples. `pytest --hypothesis-profile=search` looks for new ones.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("any machine", derandomize=True, **PATIENT)
settings.register_profile("search", max_examples=1000, **PATIENT)
settings.load_profile("any machine")

PACKAGES = ("boxdepth.depthgen", "boxdepth.trainer", "boxdepth.evaluate")


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and result against their annotations, value by value.

    typeguard's own decorator rewrites the source, which jaxtyping's strings do not survive.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                _check(value, parameter.annotation)
        return _check(function(*args, **kwargs), signature.return_annotation)

    return wrapper


def _check(value: Any, annotation: Any) -> Any:
    if annotation is not inspect.Signature.empty and not isinstance(annotation, str):
        check_type(value, annotation)
    return value


sys.modules["shape_checks"] = types.ModuleType("shape_checks")
sys.modules["shape_checks"].checked = _checked  # type: ignore[attr-defined]
_hook = install_import_hook(PACKAGES, "shape_checks.checked")
_hook.__enter__()

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("BOXDEPTH_SHARED", REPOSITORY.parent / "shared"))


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(
            f"needs {name}/ of the project's shared folder (set BOXDEPTH_SHARED to have it)"
        )
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and small pretrained backbones; never part of the repository."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder of recorded reference numbers."""
    return _shared("golden")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
