"""The job: decode ahead, predict, write one unit at a time; threads beside the model."""

from boxdepth.depthgen.generate.job import Job, Summary, plan_job
from boxdepth.depthgen.generate.run import generate

__all__ = ["Job", "Summary", "generate", "plan_job"]
