"""PyGObject: callbacks that are posted to a loop of GLib's."""

from __future__ import annotations

import pytest
from gi.repository import Gio, GLib
from opentelemetry import baggage, context, trace
from suite import IN_BOTH_ORDERS, Calls, answer_of, answering, check_undo, outside, run_program


def loop_until(is_done):
    """Run the default loop, in whatever is current, until all is done."""
    while not is_done():
        GLib.MainContext.default().iteration(True)


class _Callbacks(Calls):
    setting = "sched"

    def post(self, callback):
        raise NotImplementedError

    def hand_off(self, work):
        answers = []

        self.post(answering(work, answers))
        outside(loop_until, lambda: answers)
        return answer_of(answers)


class TestIdle(_Callbacks):
    def post(self, callback):
        GLib.idle_add(callback)


class TestTimeout(_Callbacks):
    def post(self, callback):
        GLib.timeout_add(1, callback, priority=GLib.PRIORITY_HIGH)


class TestTimeoutInSeconds(_Callbacks):
    def post(self, callback):
        GLib.timeout_add_seconds(0, callback)


@pytest.mark.parametrize("has_spans", [True, False], ids=["each with a span", "some without"])
def test_a_callback_that_is_called_again_is_a_trace_each_time(has_spans, instrument, tracer):
    """The first round is a child; each other is linked to the last that had a span."""
    instrument()
    spans, rounds, tenants = [], [], []

    def each(stop):
        rounds.append(context.get_current())
        tenants.append(baggage.get_baggage("tenant"))
        if has_spans or len(rounds) % 2:
            spans.append(tracer.start_span("round"))
        return len(rounds) < stop

    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("origin") as origin:
        GLib.timeout_add(1, each, 5)
    context.detach(token)
    loop_until(lambda: len(rounds) == 5)
    first, *others = spans
    assert first.parent == origin.get_span_context()
    assert [span.parent for span in others] == [None] * len(others)
    links = [link.context for span in others for link in span.links]
    assert links == [span.get_span_context() for span in spans[:-1]]
    assert tenants == ["acme"] * 5


def test_a_callback_that_is_posted_in_no_context_has_none(instrument, tracer):
    """Nor does it get one from its earlier rounds, or from whoever runs the loop."""
    instrument()
    seen = []

    def each():
        seen.append((trace.get_current_span(), tracer.start_span("round").links))
        context.attach(context.set_value("forgotten", 1))
        return len(seen) < 3

    outside(GLib.idle_add, each)
    with tracer.start_as_current_span("loop") as span:
        loop_until(lambda: len(seen) == 3)
        assert trace.get_current_span() is span
    assert seen == [(trace.INVALID_SPAN, ())] * 3


def test_rounds_end_with_the_library(instrument, tracer):
    """After ``uninstrument()`` a callback that is called again has no context."""
    instrument()
    seen = []

    def each():
        seen.append(dict(context.get_current()))
        if len(seen) == 2:
            instrument.__self__.uninstrument()
        return len(seen) < 4

    token = context.attach(baggage.set_baggage("tenant", "acme"))
    GLib.idle_add(each)
    context.detach(token)
    loop_until(lambda: len(seen) == 4)
    assert [bool(one) for one in seen] == [True, True, False, False]


def test_what_is_no_callable_is_refused(instrument):
    """As without the library; and what is posted can be removed."""
    instrument()
    for function, arguments in ((GLib.idle_add, ()), (GLib.timeout_add, (1, "no function"))):
        with pytest.raises(TypeError):
            function(*arguments)
    assert GLib.source_remove(GLib.timeout_add(60000, print))


LOOPS = """
from gi.repository import Gio, GLib
from opentelemetry import context
loop = GLib.MainLoop()
app = Gio.Application(flags=Gio.ApplicationFlags.NON_UNIQUE)
app.connect("activate", lambda *_: print(context.get_value("key")))
context.attach(context.set_value("key", "value"))
GLib.idle_add(lambda: (print(context.get_value("key")), loop.quit()) and None)
loop.run()
app.run([])
"""


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter; a loop runs in no context."""
    assert run_program(first.format(module="gi.repository.Gio") + LOOPS) == "value\nNone\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(GLib, GLib.MainLoop, GLib.MainContext, Gio.Application)
