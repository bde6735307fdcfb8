"""Which precision a network predicts in, and who decides."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxdepth.trainer.engine.device import multiplies_bf16
from boxdepth.trainer.errors import ConfigError
from boxdepth.trainer.predict.predictor import Predictor, load_predictor

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_a_cpu_says_itself_whether_it_multiplies_bf16(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, object], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    assert multiplies_bf16(CPU) is expected


def test_where_nobody_knows_it_does_not() -> None:
    assert not multiplies_bf16(torch.device("mps"))


@pytest.fixture
def predictor(tiny_checkpoint: Path) -> Predictor:
    return load_predictor(tiny_checkpoint, device="cpu")


@pytest.mark.parametrize(("able", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_follows_the_machine(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, able: bool, expected: torch.dtype | None
) -> None:
    monkeypatch.setattr("boxdepth.trainer.engine.device.multiplies_bf16", lambda device: able)
    predictor.compute_in("auto")
    assert predictor.spec.autocast is expected


def test_what_is_asked_for_is_done_on_every_machine(predictor: Predictor) -> None:
    predictor.compute_in("bf16")
    assert predictor.spec.autocast is torch.bfloat16
    predictor.compute_in("fp32")
    assert predictor.spec.autocast is None


@pytest.mark.parametrize(("able", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_run_of_another_machine_predicts_in_what_this_one_multiplies(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, able: bool, expected: str
) -> None:
    monkeypatch.setattr("boxdepth.trainer.engine.device.multiplies_bf16", lambda device: able)
    trained_there = replace(
        predictor.model, config=predictor.model.config.changed(precision="bf16")
    )
    assert Predictor(trained_there).precision == expected


def test_another_precision_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match="expected fp32, bf16 or auto"):
        predictor.compute_in("fp8")
