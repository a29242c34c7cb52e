"""Reports generators that another thread or task resumes, with the span that they hold.

The generator has taken that span there by itself: no call has handed work off. It is noticed when
the generator starts a span there, and reported once for each thread or task that it runs in.
"""

from __future__ import annotations

import os
from types import CodeType, FrameType

from otel_concurrency._core import frames
from otel_concurrency._observer import flows, generator_spans, state
from otel_concurrency._observer.records import Origin, new_id
from otel_concurrency._observer.suspicions import Seen

_PRIMITIVE = "generators"


def hand_off(above: Seen, origin: Origin, frame: FrameType | None) -> str | None:
    """Return the id of the hand-off by which the span of ``above`` got to ``frame``.

    That span, of which ``origin`` has the identifiers, is the parent of one that starts in
    ``frame``. None if no generator that was started elsewhere holds it.
    """
    generator = above.generator
    if generator is None:
        return None
    resumption = generator_spans.resumed_elsewhere(generator, frame)
    if resumption is None:
        return None
    known = above.resumed_in.get(resumption.place)
    if known is None:
        known = above.resumed_in[resumption.place] = new_id()
        _report(known, generator[1], above, origin, resumption.by)
    return known


def _report(number: str, code: CodeType, above: Seen, origin: Origin, by: FrameType | None) -> None:
    at_ns = flows.now()
    facts = {
        "id": number,
        "primitive": _PRIMITIVE,
        "call": f"generator {code.co_name}",
        "site": above.site or "?",
        "at_ns": at_ns,  # when it was suspended is not known
        "pid": os.getpid(),
        "thread": above.thread_name,
        "policy": flows.policy_of(_PRIMITIVE),
        "origin": origin,
        "carried": True,
    }
    state.tell("hand_off", hand_off=facts)
    state.tell(
        "attach",
        id=number,
        at_ns=at_ns,
        thread=flows.thread_name(),
        carried=True,
        of=facts,
        site=None if by is None else frames.site(by).line,
    )
