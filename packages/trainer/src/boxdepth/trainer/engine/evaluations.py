"""What was evaluated last is known by its step, so that no older numbers pass for newer ones."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boxdepth.trainer.engine.checkpoint import BEST, write_atomically

log = logging.getLogger(__name__)

PREDICTIONS, REPORT, EVALUATION = "predictions.json", "report.json", "evaluation.json"
"""What an evaluation leaves in the run folder; the last is written last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A finished evaluation: `predictions.json` and `report.json` are its."""

    step: int
    """Steps that the evaluated weights had learnt for."""
    of: str
    """Digest of what was evaluated on and how: val store, annotations, inference settings."""
    scores: Mapping[str, Any] | None
    """As in `Progress.scores`; None where nothing could be scored."""


def read_evaluation(folder: Path) -> Evaluation | None:
    """The last finished evaluation of a run; None if there was none, or nobody can tell."""
    try:
        found = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        scores = found["scores"]
        if scores is not None and not isinstance(scores, dict):
            raise TypeError("scores")
        return Evaluation(step=int(found["step"]), of=str(found["of"]), scores=scores)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("%s: not readable (%s): evaluates again", folder / EVALUATION, error)
        return None


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Say that the evaluation is finished: only now do its files stand for its step."""
    text = json.dumps(asdict(evaluation), indent=1) + "\n"
    write_atomically(folder / EVALUATION, text.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The checkpoint with the highest mask AP so far (box AP, where there is no mask to score)."""

    name: str
    """Of its folder."""
    ap: float

    @property
    def step(self) -> int:
        """Steps done by it."""
        return int(self.name.removeprefix("step-"))


def read_best(folder: Path) -> Best | None:
    """What the pointer `best` says; None if there is none, or it was spoilt."""
    try:
        name, ap = (folder / BEST).read_text(encoding="utf-8").split()
        best = Best(name=name, ap=float(ap))
        _ = best.step
    except FileNotFoundError:
        return None
    except ValueError:
        log.warning("%s: not readable, left aside", folder / BEST)
        return None
    return best


def write_best(folder: Path, best: Best) -> None:
    """Make a checkpoint the best."""
    write_atomically(folder / BEST, f"{best.name}\n{best.ap}\n".encode())


def forget_best(folder: Path, *, after: int = -1) -> None:
    """Remove the pointer `best`, if it names a step later than ``after``."""
    best = read_best(folder)
    if best is None or best.step > after:
        (folder / BEST).unlink(missing_ok=True)
