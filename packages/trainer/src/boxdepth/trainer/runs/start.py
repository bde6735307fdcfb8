"""Where a run starts: from nothing, from where it stopped, from another run, or its weights."""

from dataclasses import dataclass
from pathlib import Path

from boxdepth.trainer.errors import ConfigError

CONFIG = "config.json"
"""The resolved settings, in the run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Made by one of its four constructors; anything else that contradicts itself is refused.

    Raises:
        ConfigError: a fork that also resumes or takes other weights; a resumed run that is to be
            replaced.
    """

    resumes: bool = False
    """Go on from the newest checkpoint in the run folder; from the beginning if there is none."""
    weights: Path | None = None
    """A run, a checkpoint or a weights file whose weights the run begins with."""
    forked: Path | None = None
    """A run or checkpoint whose weights, optimiser and counters the run begins with."""
    overwrites: bool = False
    """Replace an earlier run in the folder."""

    def __post_init__(self) -> None:
        if self.resumes and self.overwrites:
            raise ConfigError("--resume and --overwrite exclude each other")
        if self.forked and (self.weights or self.resumes):
            raise ConfigError(
                "--fork already says where the run starts: without --init and --resume"
            )

    @classmethod
    def new(cls, *, overwrite: bool = False) -> "Start":
        """A new run, its weights initialised from the seed."""
        return cls(overwrites=overwrite)

    @classmethod
    def resume(cls, *, init: str | Path | None = None) -> "Start":
        """Go on as if it had never stopped; ``init``: weights for a run without a checkpoint."""
        return cls(resumes=True, weights=_path(init))

    @classmethod
    def fork(cls, source: str | Path, *, overwrite: bool = False) -> "Start":
        """A new run that goes on where another one stands, with settings of its own."""
        return cls(forked=_path(source), overwrites=overwrite)

    @classmethod
    def init(cls, source: str | Path, *, overwrite: bool = False) -> "Start":
        """A new run that begins with the weights of another run, checkpoint or file."""
        return cls(weights=_path(source), overwrites=overwrite)

    @property
    def brings_weights(self) -> bool:
        """Whether the network does not begin with random weights."""
        return self.weights is not None or self.forked is not None


NEW = Start.new()


def _path(source: str | Path | None) -> Path | None:
    return None if source is None else Path(source)
