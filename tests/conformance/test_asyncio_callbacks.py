"""What an event loop calls back for nobody: readers, signal handlers, and what a runner keeps."""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import signal
import socket
import sys

import pytest
from forms import WAIT, without_context
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, get_current, set_value

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core.handoff import Seam
from otel_concurrency._core.patching import apply_all, undo_all
from otel_concurrency._linking import rounds
from otel_concurrency._primitives import _asyncio_callbacks


def in_request(tracer, function, *args):
    """Call a function inside a span with baggage; return the span."""

    def request():
        attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("request") as span:
            function(*args)
        return span

    return without_context(request)


async def until(seen):
    """Let the loop go on until something was seen."""
    deadline = asyncio.get_running_loop().time() + WAIT
    while not seen:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)


@pytest.fixture
def loop():
    """Return an event loop that is closed after the test."""
    made = asyncio.SelectorEventLoop()
    yield made
    made.close()


@pytest.fixture
def pair():
    """Return two sockets that are connected."""
    one, other = socket.socketpair()
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_a_reader_is_in_no_context(kind, loop, pair, instrument, tracer):
    """Whoever has registered it, what it does is nobody's in particular; its arguments arrive."""
    instrument()
    one, other = pair
    seen = []

    def ready(argument):
        seen.append((argument, dict(get_current())))
        getattr(loop, f"remove_{kind}")(one)

    in_request(tracer, getattr(loop, f"add_{kind}"), one, ready, "argument")
    other.send(b"x")
    without_context(loop.run_until_complete, until(seen))
    assert seen == [("argument", {})]


class Events:
    """Calls back what a test passes, once for each event, in one of several ways."""

    def __init__(self, loop, pair, kind):
        self.loop, self.pair, self.kind = loop, pair, kind

    def register(self, callback):
        """Have it called from now on."""
        one, _ = self.pair
        if self.kind == "reader":
            self.loop.add_reader(one, lambda: callback(one.recv(1)))
        elif self.kind == "writer":  # is ready as long as it is registered
            self.loop.add_writer(one, lambda: callback(self.told() or b""))
        elif self.kind == "signal":
            self.loop.add_signal_handler(signal.SIGUSR1, lambda: callback(self.told()))
        else:
            self.connect(callback)

    def connect(self, callback):
        """Have it called by a transport."""
        one, _ = self.pair
        protocol = type("Told", (asyncio.Protocol,), {})()
        protocol.data_received = callback
        of_datagrams = type("Told", (asyncio.DatagramProtocol,), {})()
        of_datagrams.datagram_received = lambda data, _: callback(data)
        if self.kind == "connection":
            making = self.loop.create_connection(lambda: protocol, sock=one)
        elif self.kind == "datagrams":
            making = self.loop.create_datagram_endpoint(lambda: of_datagrams, sock=one)
        else:
            pipe = os.fdopen(os.dup(one.fileno()), "rb", buffering=0)
            making = self.loop.connect_read_pipe(lambda: protocol, pipe)
        self.transport, _ = self.loop.run_until_complete(making)

    def happen(self, what):
        """Have an event happen, of which the callback is told."""
        if self.kind in ("writer", "signal"):
            self.what = what
            if self.kind == "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
        else:
            self.pair[1].send(what)

    def told(self):
        """Return what has happened, once."""
        what, self.what = getattr(self, "what", None), None
        return what

    def end(self):
        """Have it called no more."""
        if self.kind == "signal":
            self.loop.remove_signal_handler(signal.SIGUSR1)
        elif self.kind in ("reader", "writer"):
            getattr(self.loop, f"remove_{self.kind}")(self.pair[0])
        else:
            self.transport.close()
            self.loop.run_until_complete(asyncio.sleep(0))


EVENTS = [
    "reader",
    "connection",
    *(["writer", "signal", "pipe", "datagrams"] if sys.platform != "win32" else []),
]


@pytest.fixture
def events(request, loop):
    """Return what calls back for events of a kind."""
    pair = socket.socketpair()
    if request.param == "datagrams":
        for one in pair:
            one.close()
        pair = socket.socketpair(type=socket.SOCK_DGRAM)
    for one in pair:
        one.setblocking(False)
    events = Events(loop, pair, request.param)
    yield events
    events.end()
    for one in pair:
        one.close()


@pytest.mark.parametrize("events", EVENTS, indirect=True)
@pytest.mark.parametrize("kind", ["asyncio.Queue", "queue.Queue", "queue.SimpleQueue"])
@pytest.mark.parametrize("items", [1, 2])
def test_an_item_of_one_event_is_not_the_next_ones(kind, items, events, instrument, tracer):
    """Each event is work of its own, though all are called back in one contextvars context."""
    instrument()
    module, _, name = kind.partition(".")
    waiting, seen = getattr(sys.modules[module], name)(), []

    def ready(what):
        if what == b"g":
            for _ in range(items):
                waiting.get_nowait()
        if what:
            with tracer.start_as_current_span(what.decode()) as span:
                seen.append((span.parent, [link.context for link in span.links], get_current()))

    def run():
        events.register(ready)
        producers = []
        for what in (b"o", b"g", b"o", b"g", b"g", b"o"):
            if what == b"g":
                for _ in range(items):
                    with tracer.start_as_current_span("producer") as span:
                        waiting.put_nowait(1)
                    producers.append(span.get_span_context())
            del seen[:]
            events.happen(what)
            events.loop.run_until_complete(until(seen))
            (parent, links, context), due = seen[0], producers[-items:]
            if what == b"o":
                assert (parent, links, len(context)) == (None, [], 1)  # the span alone
            elif items == 1:
                assert parent == due[0]
            else:
                assert (parent, links) == (None, due)

    without_context(run)


@pytest.mark.parametrize("events", EVENTS[:1], indirect=True)
def test_a_handle_of_many_events_looks_like_any(events, instrument, monkeypatch):
    """It is of the same class by name, says the same of itself, and can be cancelled."""
    made = []
    loop = events.loop
    monkeypatch.setattr(loop, "_add_reader", lambda *args: made.append(add(*args)) or made[-1])
    add = type(loop)._add_reader.__get__(loop)

    def described():
        loop.add_reader(events.pair[0], print, 1)
        (handle,) = made
        del made[:]
        parts = (
            type(handle).__module__,
            type(handle).__qualname__,
            isinstance(handle, asyncio.Handle),
        )
        return *parts, repr(handle), handle.cancelled(), handle.cancel() or handle.cancelled()

    plain = described()
    instrument()
    add = type(loop)._add_reader.__get__(loop)
    assert described() == plain


def test_a_reader_keeps_nothing_alive(loop, pair, instrument, no_collector):
    """The loop holds no context of who has registered it."""
    instrument()

    class Value:
        pass

    def register():
        value = Value()
        attach(set_value("key", value))
        loop.add_reader(pair[0], print)
        return weak_reference(value)

    assert without_context(register)() is None
    loop.remove_reader(pair[0])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no add_signal_handler")
def test_a_signal_handler_of_a_loop_is_in_no_context(instrument, tracer):
    """Wherever it was registered, and whatever runs when the signal comes."""
    instrument()
    seen = []
    loop = asyncio.new_event_loop()
    try:

        async def main():
            attach(set_value("key", "own"))
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(seen)
            return dict(get_current())

        in_request(
            tracer,
            loop.add_signal_handler,
            signal.SIGUSR1,
            lambda argument: seen.append((argument, dict(get_current()))),
            "argument",
        )
        assert without_context(loop.run_until_complete, main()) == {"key": "own"}
        assert seen == [("argument", {})]
        assert loop.remove_signal_handler(signal.SIGUSR1)
    finally:
        loop.close()


def test_callbacks_are_as_without_the_library_where_it_is_off(loop, pair, instrument, tracer):
    """With the primitive off asyncio keeps the context of whoever registers."""
    instrument(asyncio="off")
    seen = []

    def ready():
        seen.append(baggage.get_baggage("tenant"))
        loop.remove_reader(pair[0])

    in_request(tracer, loop.add_reader, pair[0], ready)
    pair[1].send(b"x")
    without_context(loop.run_until_complete, until(seen))
    assert seen == ["acme"]


def test_a_callback_with_a_context_of_its_own_is_no_round(loop, instrument, tracer):
    """What the program passes as `context=` stands."""
    instrument()
    mine = contextvars.Context()
    mine.run(attach, trace.set_span_in_context(tracer.start_span("own"), Context()))
    spans = []

    def tick():
        spans.append(tracer.start_span("round"))
        if len(spans) < 3:
            loop.call_later(0, tick, context=mine)

    loop.call_later(0, tick, context=mine)

    async def main():
        while len(spans) < 3:
            await asyncio.sleep(0)

    without_context(loop.run_until_complete, main())
    assert len({span.parent.span_id for span in spans}) == 1


def test_a_step_of_other_work_is_no_round(loop, instrument, tracer):
    """A callback that schedules another one goes on in its own trace."""
    instrument()
    seen = []
    in_request(tracer, loop.call_later, 0, lambda: loop.call_later(0, second))

    def second():
        span = tracer.start_span("second")
        seen.append((span.parent is None, baggage.get_baggage("tenant")))

    without_context(loop.run_until_complete, until(seen))
    assert seen == [(False, "acme")]


@pytest.mark.parametrize("known", [True, False])
def test_a_future_of_the_programs_that_arms_itself_is_a_round(
    known, loop, instrument, tracer, monkeypatch
):
    """Only of asyncio's own it is known that they arm nothing; whatever a timer is made by."""

    class Repeats(asyncio.Future):
        def set_result(self, result):
            spans.append(tracer.start_span("round"))
            if len(spans) < 3:
                loop.call_later(0, self.set_result, result)
            else:
                super().set_result(result)

    if not known:
        plain = asyncio.TimerHandle.__init__

        def __init__(self, when, callback, args, loop, context=None):
            plain(self, when, callback, args, loop, context)

        monkeypatch.setattr(asyncio.TimerHandle, "__init__", __init__)
    spans = []
    instrument()
    future = Repeats(loop=loop)
    request = in_request(tracer, loop.call_later, 0, future.set_result, 1)
    without_context(loop.run_until_complete, future)
    origins = [span.parent or span.links[0].context for span in spans]
    assert [span.parent is None for span in spans] == [False, True, True]
    before = [request, *spans[:2]]
    assert [one.span_id for one in origins] == [one.context.span_id for one in before]


@pytest.mark.parametrize("again", [False, True])
def test_a_timer_knows_where_it_was_armed(again, loop, instrument):
    """In debug mode its traceback ends in the program, as without the library."""
    instrument()
    loop.set_debug(True)
    timers = []

    def tick():
        timers.append(loop.call_later(0, tick) if len(timers) % 2 else loop.call_at(0, tick))

    async def main():
        while len(timers) < 4:
            await asyncio.sleep(0)

    if again:
        loop.call_soon(tick)
        without_context(loop.run_until_complete, main())
    else:
        tick()
        tick()
    assert {timer._source_traceback[-1].name for timer in timers} == {"tick"}


def test_a_timer_of_a_class_that_inherits_its_init_is_made_as_before(loop, monkeypatch):
    """A program may have put a class of its own into the module before the library comes."""

    class OfProgram(asyncio.TimerHandle):
        __slots__ = ()

    monkeypatch.setattr(asyncio.events, "TimerHandle", OfProgram)
    layers = _asyncio_callbacks.MODULES["asyncio.base_events"](asyncio.base_events, Seam("timers"))
    loop.set_debug(True)
    apply_all(layers)
    try:
        timer = loop.call_later(0, loop.stop)
        place = timer._source_traceback[-1].name
        loop.run_forever()
    finally:
        undo_all(layers)
        rounds.made_of.pop(OfProgram)
    assert type(timer) is OfProgram
    assert place == sys._getframe().f_code.co_name


def test_a_layer_below_the_programs_own_patch_is_inert_when_off(loop, instrument, monkeypatch):
    """A layer that cannot be removed does not note which timer runs."""
    instrument()
    below = asyncio.TimerHandle._run
    monkeypatch.setattr(asyncio.TimerHandle, "_run", lambda self: below(self))
    ConcurrencyInstrumentor().uninstrument()
    noted = []
    loop.call_later(0, lambda: (noted.append(dict(rounds.running)), loop.stop()))
    loop.run_forever()
    assert noted == [{}]


def test_a_timer_without_a_time_is_refused(loop, instrument):
    """It would end the loop where it is compared with others: 3.10 asserts, others raise."""
    instrument()
    with pytest.raises((TypeError, AssertionError)):
        loop.call_at(None, print)
    loop.call_soon(loop.stop)
    loop.run_forever()


# --- runners ---

needs_runner = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio has a Runner from 3.11 on"
)


async def forget():
    """Attach a context, and forget to detach it."""
    attach(baggage.set_baggage("tenant", "other"))


async def see():
    """Return what is current."""
    return baggage.get_baggage("tenant")


@needs_runner
@pytest.mark.parametrize("around", [None, "acme"])
def test_the_next_run_sees_nothing_of_the_last(around, instrument):
    """It begins in what the runner was made in."""
    instrument()

    def program():
        if around:
            attach(baggage.set_baggage("tenant", around))
        with asyncio.Runner() as runner:
            runner.run(forget())
            first = runner.run(see())
            runner.run(forget())
            with pytest.raises(ValueError, match="theirs"):
                runner.run(fail())
            return first, runner.run(see())

    async def fail():
        attach(baggage.set_baggage("tenant", "failed"))
        raise ValueError("theirs")

    assert without_context(program) == (around, around)


@needs_runner
def test_a_context_that_is_passed_to_a_runner_is_the_programs(instrument):
    """What is left in it stays in it."""
    instrument()
    mine = contextvars.Context()
    with asyncio.Runner() as runner:
        runner.run(forget(), context=mine)
        assert runner.run(see(), context=mine) == "other"
        assert runner.run(see()) is None


@needs_runner
def test_the_next_run_in_a_context_that_is_passed_has_no_item_of_the_last(instrument, caplog):
    """It is the library that attaches what an item came with. All else is left as it is."""
    instrument()
    mine, items = contextvars.Context(), queue.Queue()

    async def get():
        await forget()
        items.get()
        return await see()

    def put():
        attach(baggage.set_baggage("tenant", "item's"))
        items.put(object())

    with asyncio.Runner() as runner:
        without_context(put)
        without_context(put)
        assert runner.run(get(), context=mine) == "item's"
        assert runner.run(see(), context=mine) == "other"
        assert mine.run(runner.run, see(), context=contextvars.Context()) is None
    assert not caplog.records


@needs_runner
def test_a_runner_that_is_used_wrongly_says_so(instrument):
    """Errors are asyncio's own."""
    instrument()
    runner = asyncio.Runner()
    with pytest.raises((TypeError, ValueError)):  # by version
        runner.run(5)
    runner.get_loop()
    runner.close()
    coroutine = see()
    with pytest.raises(RuntimeError, match="closed"):
        runner.run(coroutine)
    coroutine.close()


@needs_runner
def test_a_runner_that_is_run_by_itself_says_so(instrument, caplog):
    """The error is asyncio's own, and there is no other."""
    instrument()

    async def nested(**given):
        coroutine = see()
        with pytest.raises(RuntimeError, match="running event loop"):
            runner.run(coroutine, **given)
        coroutine.close()

    mine, items = contextvars.Context(), queue.Queue()
    without_context(lambda: attach(set_value("key", "item's")) and items.put(object()))
    without_context(items.get)  # something was adopted in this process
    with asyncio.Runner() as runner:
        runner.run(nested())
        runner.run(nested(context=mine), context=mine)
    assert not caplog.records


@needs_runner
def test_a_run_that_is_going_on_when_the_library_goes_is_not_disturbed(instrument):
    """Switching off inside it leaves the runner as it is without the library, or clean."""
    instrument()

    async def switch_off():
        ConcurrencyInstrumentor().uninstrument()
        attach(baggage.set_baggage("tenant", "other"))

    with asyncio.Runner() as runner:
        runner.run(switch_off())
        runner.run(see())
