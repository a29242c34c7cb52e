"""What holds for work in another interpreter, whichever way it gets there: from 3.14 on."""

from __future__ import annotations

import process_work
import pytest
from interpreter_forms import by_a_call, by_a_pool
from process_work import NOTHING, Sight
from test_processes import baggage_only, no_context, span_and_baggage


@pytest.fixture(params=[by_a_pool, by_a_call])
def call(request):
    """Return what calls work in another interpreter, and returns its result."""
    with request.param() as opened:
        yield opened


def seen(call, work=process_work.look):
    """Return what work sees in another interpreter."""
    return Sight(*call(work))


@pytest.mark.parametrize("first", [no_context, span_and_baggage, baggage_only])
def test_work_runs_in_the_context_of_whoever_hands_it_off(call, first, instrumented, tracer):
    """Each sees its own parent and baggage, or nothing, whatever the first was called in."""
    for situation in (first, span_and_baggage, no_context, baggage_only, span_and_baggage):
        with situation(tracer) as expected:
            assert seen(call) == expected
            assert seen(call, process_work.look_and_forget) == expected


def test_a_policy_crosses(call, instrument, tracer):
    """Under `link` the work starts a new trace that is linked to the origin."""
    instrument(multiprocessing="link")
    with span_and_baggage(tracer) as origin:
        sight = seen(call)
    link = (origin.parent, "policy", "multiprocessing")
    assert sight == Sight(baggage=origin.baggage, links=(link,))


def test_excluded_work_starts_clean(call, instrument, tracer):
    """Work that the user excludes runs without a context."""
    instrument(excluded="process_work.look_alone")
    with span_and_baggage(tracer) as expected:
        assert seen(call, process_work.look_alone) == NOTHING
        assert seen(call) == expected


def test_off_is_off(call, instrument, tracer):
    """Where the primitive is off the other interpreter gets nothing."""
    instrument(multiprocessing="off")
    with span_and_baggage(tracer):
        assert seen(call) == NOTHING


def test_stateless_functions_and_keywords_cross_as_before(call, instrumented, tracer):
    """A function that needs nothing around it is run though it cannot be imported there."""
    with span_and_baggage(tracer):
        assert call(lambda value, *, other: value + other, 40, other=2) == 42
        assert call(len, [1, 2]) == 2
