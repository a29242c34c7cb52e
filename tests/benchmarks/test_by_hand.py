"""A hand-off by hand costs no more than the three steps that it spares: counted, not timed."""

from __future__ import annotations

import contextvars
import gc
import sys
from types import FrameType
from typing import Any

import pytest
from opentelemetry import trace
from operations import BY_HAND, OPERATIONS, OURS, PLAIN, TRACER

from interpreters import PYPY
from otel_concurrency._core import handoff

LOOPS = 200


def count(run: Any) -> float:
    """Return how many bytecode instructions and calls a loop executes, of whatever code.

    A call is counted beside its instructions, since it takes several times as long.
    """
    instructions = calls = 0

    def on_event(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal instructions
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            instructions += 1
        return on_event

    def on_call(_: FrameType, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    tracing, profiling = sys.gettrace(), sys.getprofile()
    gc.collect()
    gc.disable()  # what it calls would be counted as well
    try:
        for _ in range(2):  # first times are others
            instructions = 0
            sys.settrace(on_event)
            run(LOOPS)
            sys.settrace(tracing)
        sys.setprofile(on_call)
        run(LOOPS)
    finally:
        sys.settrace(tracing)
        sys.setprofile(profiling)
        gc.enable()
    return (instructions + calls) / LOOPS


ADOPTED = 0.15
"""What may be added in a process in which items were adopted: one look at a context variable."""


@pytest.mark.skipif(PYPY, reason="PyPy compiles what is hot: instructions tell nothing")
@pytest.mark.parametrize(
    "name", [name for name, operation in OPERATIONS.items() if operation.at_most_by_hand]
)
@pytest.mark.parametrize("adopted", [False, True], ids=["no items", "items"])
def test_it_executes_no_more_than_the_three_steps(name, adopted, monkeypatch):
    """`get_current`, `attach` and `detach` with a `finally` are what is compared with."""
    monkeypatch.setattr(handoff, "any_adopted", adopted)
    operation = OPERATIONS[name]
    counts = {}

    def count_all() -> None:
        with trace.use_span(TRACER.start_span("handler")):
            for variant in (PLAIN, BY_HAND, OURS):
                with operation.setting(variant) as run:
                    counts[variant] = count(run)

    contextvars.Context().run(count_all)  # no item that another test has got is held there
    by_hand, ours = (counts[variant] - counts[PLAIN] for variant in (BY_HAND, OURS))
    assert by_hand > 0
    assert ours / by_hand <= operation.at_most_by_hand + ADOPTED * adopted, counts
