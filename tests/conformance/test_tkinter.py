"""What `tkinter` calls after a while, and what its events call: on a real display, of Xvfb's.

Where there is no display and no Xvfb, or Python was built without Tcl, nothing of it can be run.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import shutil
import sys
import threading

import pytest
from forms import WAIT, without_context
from links import assert_linked, named
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, set_value

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor

_HAS_DISPLAY = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY")

if importlib.util.find_spec("_tkinter") is None:
    pytest.skip("this Python was built without Tcl", allow_module_level=True)
if not (_HAS_DISPLAY or shutil.which("Xvfb")):
    pytest.skip("there is no display, and no Xvfb to make one", allow_module_level=True)

tkinter = importlib.import_module("tkinter")


_made = []
"""All windows, destroyed or not: the thread that has made one has to delete it in the end, and the
collector may run in any."""

_XVFB = "Xvfb -screen 0 640x480x24 -nolisten tcp"


@pytest.fixture(scope="session")
def _display():
    """Have a display for as long as this process lives: Xlib ends a process that loses its own."""
    if _HAS_DISPLAY:
        return
    displays, into = os.pipe()
    alive, _until_the_end = os.pipe()
    os.set_inheritable(into, True)
    os.posix_spawnp(
        "sh",
        ["sh", "-c", f"{_XVFB} -displayfd {into} 2>/dev/null & read end; kill $!"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, alive, 0)],
    )
    os.close(alive)
    os.close(into)
    with os.fdopen(displays) as told:
        os.environ["DISPLAY"] = f":{told.readline().strip()}"


@pytest.fixture
def root(_display):
    """Return a window; what its callbacks raise fails the test."""
    made = without_context(tkinter.Tk)
    _made.append(made)
    errors = []
    made.report_callback_exception = lambda *error: errors.append(error)
    without_context(made.update)  # no event reaches a window before it is there
    yield made
    made.destroy()
    assert not errors


def here():
    """Return what is current: the span's id, and the tenant."""
    return trace.get_current_span().get_span_context().span_id, baggage.get_baggage("tenant")


NOTHING = (0, None)


def in_request(tracer, function, *args):
    """Call a function inside a span with baggage; return what its work is to see."""

    def request():
        attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("request") as span:
            function(*args)
        return span.get_span_context().span_id, "acme"

    return without_context(request)


def run(root, until):
    """Run the loop in no context until something is true."""
    without_context(run_here, root, until)


def run_here(root, until):
    """Run the loop in the present context until something is true."""
    too_late = without_context(root.after, WAIT * 1000, root.quit)

    def look():
        if until():
            root.quit()
        else:
            without_context(root.after, 1, look)

    without_context(root.after, 1, look)
    root.mainloop()
    root.after_cancel(too_late)
    assert until()


@pytest.mark.parametrize("how", ["after", "after 0", "after_idle"])
def test_what_is_called_after_a_while_is_of_whoever_asks(how, root, instrument, tracer):
    """It runs once, in that context, with its arguments; the loop is in none."""
    instrument()
    seen = []
    work = lambda *args: seen.append((args, here()))  # noqa: E731
    if how == "after_idle":
        expected = in_request(tracer, root.after_idle, work, 1, 2)
    else:
        expected = in_request(tracer, root.after, 0 if how == "after 0" else 1, work, 1, 2)
    run(root, lambda: seen)
    assert seen == [((1, 2), expected)]


def test_it_is_of_nobody_where_nobody_asked_in_a_context(root, instrument, tracer):
    """Whoever runs the loop, and whatever it has called before."""
    instrument()
    seen = []
    without_context(root.after, 1, lambda: seen.append(here()))
    with tracer.start_as_current_span("loop"):
        before = here()
        run_here(root, lambda: seen)
        assert here() == before
    assert seen == [NOTHING]


def test_what_one_callback_leaves_attached_is_not_for_the_next(root, instrument):
    """Nor for events."""
    instrument()
    seen = []
    root.after(1, lambda: attach(baggage.set_baggage("tenant", "forgotten")))
    root.after(5, lambda: seen.append(here()))
    root.bind("<<Event>>", lambda _: seen.append(here()))
    root.after(5, lambda: root.event_generate("<<Event>>", when="tail"))
    run(root, lambda: len(seen) == 2)
    assert seen == [NOTHING, NOTHING]


def test_another_thread_posts_in_its_own_context(root, instrument, tracer):
    """As programs do to come back to the thread of the loop."""
    instrument()
    seen, expected = [], []

    def elsewhere():
        expected.append(in_request(tracer, root.after, 0, lambda: seen.append(here())))

    thread = threading.Thread(target=elsewhere)
    without_context(root.after, 1, thread.start)
    run(root, lambda: seen)
    thread.join(WAIT)
    assert seen == expected


@pytest.mark.parametrize("style", ["arms first", "arms last"])
def test_a_callback_that_asks_for_itself_is_periodic(style, root, instrument, tracer, exporter):
    """Each round from the second on is a trace, linked to the one before, with the baggage."""
    instrument()
    seen = []

    def tick():
        seen.append(baggage.get_baggage("tenant"))
        if style == "arms first" and len(seen) < 4:
            root.after(1, tick)
        tracer.start_span(f"round {len(seen)}").end()
        if style == "arms last" and len(seen) < 4:
            root.after(1, tick)

    in_request(tracer, root.after, 1, tick)
    run(root, lambda: len(seen) == 4)
    spans = named(exporter)
    assert seen == ["acme"] * 4
    assert spans["round 1"].parent == spans["request"].context
    for number in (1, 2, 3):
        before, span = spans[f"round {number}"], spans[f"round {number + 1}"]
        assert_linked(span, before, reason="periodic", primitive="sched")


def test_a_step_of_other_work_is_no_round(root, instrument, tracer):
    """What a callback posts that is another one goes on in its context."""
    instrument()
    seen = []
    expected = in_request(tracer, root.after, 1, lambda: root.after(1, lambda: seen.append(here())))
    run(root, lambda: seen)
    assert seen == [expected]


def test_a_policy_of_links_holds(root, instrument, tracer):
    """They go by SCHED."""
    instrument(sched="link")
    seen = []

    def work():
        span = tracer.start_span("work")
        seen.append((span.parent, [link.context.span_id for link in span.links]))

    span_id, _ = in_request(tracer, root.after, 1, work)
    run(root, lambda: seen)
    assert seen == [(None, [span_id])]


# --- events ---


def test_events_are_nobodys(root, instrument, tracer):
    """In whatever context they were bound, and in whatever the loop is run."""
    instrument()
    seen = []

    def bind():
        root.bind("<<Event>>", lambda _: seen.append(("event", here())))
        root.bind("<Configure>", lambda _: seen.append(("configure", here())))
        variable.trace_add("write", lambda *_: seen.append(("variable", here())))
        entry.pack()

    variable = tkinter.StringVar(root)
    entry = tkinter.Entry(root, textvariable=variable)
    in_request(tracer, bind)
    root.event_generate("<<Event>>", when="tail")
    without_context(root.after, 1, lambda: entry.insert(0, "typed"))
    with tracer.start_as_current_span("loop"):
        run_here(root, lambda: {name for name, _ in seen} == {"event", "configure", "variable"})
    assert {found for _, found in seen} == {NOTHING}


@pytest.mark.parametrize("loop", ["update", "update_idletasks", "wait_variable", "wait_window"])
def test_events_in_a_short_loop_are_nobodys(loop, root, instrument, tracer):
    """A handler that lets the loop go on for a moment does not make them its own."""
    instrument()
    seen = []
    done = tkinter.BooleanVar(root)
    root.bind("<<Event>>", lambda _: seen.append(here()))
    without_context(root.after_idle, lambda: seen.append(here()))
    without_context(root.after_idle, lambda: done.set(True))
    root.event_generate("<<Event>>", when="tail")
    arguments = ()
    if loop == "wait_variable":
        arguments = (done,)
    elif loop == "wait_window":
        arguments = (without_context(tkinter.Toplevel, root),)
        without_context(root.after_idle, arguments[0].destroy)
    with tracer.start_as_current_span("handler"):
        before = here()
        getattr(root, loop)(*arguments)
        assert here() == before
    without_context(root.update)
    assert {*seen} == {NOTHING}


def test_what_the_program_causes_at_once_is_an_ordinary_call(root, instrument, tracer):
    """`invoke`, `event_generate` and `set` call back in the context of their caller."""
    instrument()
    seen = []
    variable = tkinter.StringVar(root)
    variable.trace_add("write", lambda *_: seen.append(here()))
    button = tkinter.Button(root, command=lambda: seen.append(here()))
    root.bind("<<Event>>", lambda _: seen.append(here()))

    def request():
        button.invoke()
        variable.set("value")
        root.event_generate("<<Event>>")

    expected = in_request(tracer, request)
    assert seen == [expected] * 3


# --- what a program may notice ---


class Callback:
    """A callable object without a name."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self):
        self.seen.append(1)


def script_of(root, posted):
    """Return what Tcl calls; `after_info` does so from 3.13 on."""
    return root.tk.splitlist(root.tk.call("after", "info", posted))[0]


def names(root):
    """Return how Tcl names what was posted, but for the numbers."""
    posted = [root.after(10_000, work) for work in (run, Callback([]), [].append)]
    found = [re.sub(r"\d+", "", script_of(root, one)) for one in posted]
    for one in posted:
        root.after_cancel(one)
    return found


def test_what_is_posted_is_named_as_without_the_library(root):
    """By the function, or by the type of an object."""
    plain = names(root)
    ConcurrencyInstrumentor().instrument()
    try:
        assert names(root) == plain
    finally:
        ConcurrencyInstrumentor().uninstrument()


def test_errors_are_as_without_the_library(root, instrument, tracer):
    """Of the callback, to the window that reports them; of wrong arguments, to the caller."""
    instrument()
    errors = []
    root.report_callback_exception = lambda *error: errors.append(error[0])

    def fail():
        raise LookupError("theirs")

    in_request(tracer, root.after, 1, fail)
    run(root, lambda: errors)
    assert errors == [LookupError]
    with tracer.start_as_current_span("request"):
        with pytest.raises(tkinter.TclError):
            root.after("no time", fail)
        assert root.after(1) is None
    del root.report_callback_exception


class Value:
    """Something that a weak reference sees."""


@pytest.mark.parametrize("end", ["runs", "is cancelled", "fails to be posted"])
def test_nothing_is_kept_alive(end, root, instrument, no_collector):
    """When it has run, was cancelled, or could not be posted."""
    instrument()
    done = []

    def request():
        value = Value()
        token = attach(set_value("key", value))
        if end == "fails to be posted":
            with pytest.raises(tkinter.TclError):
                root.after("no time", done.append, 1)
            posted = None
        else:
            posted = root.after(1 if end == "runs" else 10_000, done.append, 1)
        detach(token)
        return weak_reference(value), posted

    dead, posted = without_context(request)
    if end == "is cancelled":
        root.after_cancel(posted)
    elif end == "runs":
        run(root, lambda: done)
    gc.collect()
    assert dead() is None


def test_it_is_undone_exactly_and_what_is_posted_runs(root, tracer):
    """What was posted while the library was on is called when it is off, in its context."""
    before = dict(vars(tkinter.Misc)), tkinter.mainloop
    ConcurrencyInstrumentor().instrument()
    seen = []
    expected = in_request(tracer, root.after, 1, lambda: seen.append(here()))
    ConcurrencyInstrumentor().uninstrument()
    assert all(vars(tkinter.Misc)[name] is raw for name, raw in before[0].items())
    assert vars(tkinter.Misc).keys() == before[0].keys()
    assert tkinter.mainloop is before[1]
    run(root, lambda: seen)
    assert seen == [expected]
