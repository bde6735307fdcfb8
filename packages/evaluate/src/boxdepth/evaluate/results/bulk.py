"""Building millions of small objects without the garbage collector visiting them each time."""

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def without_collector(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The same function with cyclic garbage collection paused, if it was on.

    None of these objects takes part in a cycle, and every few hundred new ones the collector would
    visit all of them: a third of the time that a large results file takes.
    """

    @functools.wraps(function)
    def paused(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            gc.enable()

    return paused
