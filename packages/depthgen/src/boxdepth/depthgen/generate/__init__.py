"""The job: decode ahead, predict, write one unit at a time; threads beside the model.

``generate`` brings torch with it when it is asked for; what plans a job needs none.
"""

from typing import TYPE_CHECKING, Any

from boxdepth.depthgen.generate.job import Job, Summary, plan_job

if TYPE_CHECKING:
    from boxdepth.depthgen.generate.run import generate

__all__ = ["Job", "Summary", "generate", "plan_job"]


def __getattr__(name: str) -> Any:
    if name == "generate":
        from boxdepth.depthgen.generate.run import generate

        return generate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
