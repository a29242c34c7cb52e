"""Actions of ``sched``: each runs in what it was entered in, whatever its loop runs in."""

from __future__ import annotations

import functools
import sched
import threading

import pytest
from forms import WAIT, without_context
from opentelemetry import baggage, context, trace
from opentelemetry.context import attach, detach, get_current


class Loop:
    """A loop of ``scheduler.run`` on a thread that is started in a request."""

    def __init__(self, tracer):
        self.scheduler = sched.scheduler()
        self.seen = []
        self._tracer = tracer

    def enter(self, name, action=None):
        """Enter an action that notes what it runs in."""
        self.scheduler.enter(0, 1, action or self.act, (name,))

    def act(self, name):
        with self._tracer.start_as_current_span(name) as span:
            parent = span.parent and span.parent.span_id
            self.seen.append((name, parent, baggage.get_baggage("tenant")))

    def enter_in_span(self, name):
        """Enter an action in a span of its own, with baggage; return what it is to see."""
        return self._in_span(name, self.enter, name)

    def run_in_thread_of_request(self):
        """Run what is due on a thread that is started in a span, with baggage."""
        thread = threading.Thread(target=self.scheduler.run)
        self._in_span("request", thread.start)
        thread.join(WAIT)

    def run_in_request(self):
        """Run what is due in a span, with baggage, and leave that as it was."""

        def run():
            before = get_current()
            self.scheduler.run()
            assert get_current() is before

        self._in_span("request", run)

    def _in_span(self, tenant, function, *args):
        token = attach(baggage.set_baggage("tenant", tenant))
        with self._tracer.start_as_current_span("origin") as span:
            function(*args)
        detach(token)
        return span.get_span_context().span_id, tenant


RUNS = ["run_in_thread_of_request", "run_in_request"]


@pytest.mark.parametrize("run", RUNS)
def test_an_action_that_was_entered_without_a_context_has_none(run, instrument, tracer):
    """Its span is a root, without baggage, between actions that have their own contexts."""
    instrument()
    loop = Loop(tracer)
    loop.enter("plain")
    first = loop.enter_in_span("first")
    loop.enter("partial", functools.partial(loop.act))
    second = loop.enter_in_span("second")
    without_context(getattr(loop, run))
    assert loop.seen == [
        ("plain", None, None),
        ("first", *first),
        ("partial", None, None),
        ("second", *second),
    ]


def test_an_action_that_forgets_to_detach_leaves_nothing_to_the_next(instrument, tracer):
    """Neither has one that was entered in a context, nor one that was not."""
    instrument()
    loop = Loop(tracer)

    def forget(name):
        loop.act(name)
        attach(context.set_value("forgotten", name))

    loop.enter("plain", forget)
    first = loop._in_span("first", loop.enter, "first", forget)
    loop.enter("next", lambda name: loop.seen.append((name, dict(get_current()))))
    without_context(loop.run_in_thread_of_request)
    assert loop.seen == [("plain", None, None), ("first", *first), ("next", {})]


def test_an_action_sees_itself_in_the_queue(instrument, tracer):
    """What stands in the event, and what an action that fails raises, is the program's own."""
    instrument()
    scheduler = sched.scheduler()
    error = ValueError("the action's")

    def fail():
        raise error

    event = scheduler.enter(0, 1, fail)
    with tracer.start_as_current_span("request") as span:
        assert event.action is fail
        with pytest.raises(ValueError, match="the action's") as raised:
            scheduler.run()
        assert raised.value is error
        assert trace.get_current_span() is span
        scheduler.enter(0, 1, 42)
        with pytest.raises(TypeError, match="not callable"):
            scheduler.run()


@pytest.mark.parametrize("how", ["off", "uninstrumented"])
def test_switched_off_an_action_runs_in_what_its_loop_is_in(how, instrument, tracer):
    """As without the library, by the policy or with all of it."""
    instrument(sched="off" if how == "off" else "parent")
    loop = Loop(tracer)
    loop.enter("plain")
    if how == "uninstrumented":
        instrument.__self__.uninstrument()
    loop.run_in_request()
    ((_, parent, tenant),) = loop.seen
    assert parent is not None
    assert tenant == "request"
