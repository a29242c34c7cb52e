"""From the frame of a generator to the generator, which can be referred to weakly.

CPython 3.12 to 3.14 may close a suspended generator that has no handler around its ``yield``
without resuming it, and send no event (``gen_close``): 3.12.3, 3.13.0 to 3.13.5 and 3.14.0 do so.
3.12.1 resumes it, and 3.13.18 and 3.14.4 do if a tool listens to PY_UNWIND. To keep its frame would
keep its variables alive then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import AsyncGeneratorType, CodeType, FrameType, GeneratorType
from typing import Any, cast
from weakref import ref

from otel_concurrency._generators.bytecode import is_bare

_CLOSES_UNHEARD = (3, 12) <= sys.version_info[:2] <= (3, 14)


def ends_unheard(code: CodeType, resume: int) -> bool:
    """Whether a generator that is suspended before the RESUME at ``resume`` may end unheard."""
    return _CLOSES_UNHEARD and is_bare(code, resume)


def owner(frame: FrameType, when_gone: Callable[[], None]) -> ref[Any] | None:
    """Return a weak reference to the generator that runs ``frame``; None where it is not found.

    ``when_gone`` is called when the generator is gone, as long as the reference is kept.
    """
    generator = _generator(frame)
    return None if generator is None else ref(generator, lambda _: when_gone())


def runs(owner: ref[Any], frame: FrameType) -> bool:
    """Whether the generator that ``owner`` refers to is the one that runs ``frame``."""
    return _runs(owner(), frame)


def _generator(frame: FrameType) -> Any:
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
