"""Memory that a step frees is there for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from boxdepth.trainer.engine.allocator import OF_THE_USER

STEPS = """
import resource
from boxdepth.trainer.engine.allocator import keep_freed_memory

def step():
    return [bytearray(size << 20) for size in (3, 9, 17, 30)]

print(keep_freed_memory())
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def steps(**environment: str) -> list[str]:
    """Whether memory is kept, and the page faults of ten steps of 59 MB each."""
    mine = {k: v for k, v in os.environ.items() if k not in OF_THE_USER}
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        capture_output=True, text=True, check=True, env=mine | environment, timeout=250,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_steps_take_what_the_steps_before_them_freed() -> None:
    kept, faults = steps()
    assert kept == "True"
    assert int(faults) < 1000  # of the 151,040 that the pages of 59 MB are, ten times over


def test_what_the_user_has_set_stands() -> None:
    assert steps(MALLOC_TRIM_THRESHOLD_="65536")[0] == "False"
