"""From the frame of a generator to the generator: where its end has no event, it has to be watched.

CPython 3.13 ends a suspended generator that has no handler around its ``yield`` without resuming
it, so nobody hears of it (``gen_close``; from 3.14 on it does so only where nobody listens to
PY_UNWIND). It can be referred to weakly, which its frame cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from types import AsyncGeneratorType, FrameType, GeneratorType
from typing import Any, cast
from weakref import ref


def when_gone(frame: FrameType, callback: Callable[[FrameType], None]) -> object:
    """Have ``callback(frame)`` called when the generator that runs ``frame`` is gone.

    It is, as long as what is returned is kept.
    """
    generator = _generator(frame)
    return None if generator is None else ref(generator, lambda _: callback(frame))


def _generator(frame: Any) -> Any:
    if hasattr(frame, "f_generator"):  # from 3.14 on
        return frame.f_generator
    import gc

    for found in gc.get_objects(generation=0):  # nearly always it has just been made
        if _runs(found, frame):
            return found
    for found in gc.get_referrers(frame):
        if _runs(found, frame):
            return found
    return None


def _runs(found: Any, frame: FrameType) -> bool:
    kind = cast("type[object]", type(found))  # not isinstance(): that may run the program's code
    if kind is GeneratorType:
        return found.gi_frame is frame
    return kind is AsyncGeneratorType and found.ag_frame is frame
