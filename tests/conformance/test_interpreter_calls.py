"""`concurrent.interpreters`, from 3.14 on: calls in another interpreter, and queues between them.

The interpreters are real. What work was run in is told by a span that it makes there.
"""

from __future__ import annotations

import contextvars
import threading
from concurrent import interpreters

import process_work
import pytest
from interpreter_forms import TIMEOUT, open_interpreter
from process_work import NOTHING, Sight
from test_processes import no_context, span_and_baggage

from otel_concurrency import ConcurrencyInstrumentor


@pytest.fixture
def interpreter():
    """Return an interpreter that imports from where this one does."""
    with open_interpreter() as opened:
        yield opened


def seen_in(interpreter):
    """Return what work sees in another interpreter."""
    return Sight(*interpreter.call(process_work.look))


def test_a_call_in_a_thread_runs_in_the_context_of_its_caller(interpreter, instrumented, tracer):
    """The thread is one of this interpreter, and its call is one in the other."""
    queue = interpreters.create_queue()
    interpreter.call(exec, "import __main__; __main__.queue = queue", {"queue": queue})
    with span_and_baggage(tracer) as expected:
        thread = interpreter.call_in_thread(process_work.look_into, queue)
        thread.join(TIMEOUT)
        seen = Sight(*queue.get(timeout=TIMEOUT))
    assert seen == expected


def outcomes(interpreter):
    """Return what comes of calls that cannot cross, before they are made and after."""
    here = object()

    def closes_over():
        return here

    found = []
    for work, *args in (
        (closes_over,),
        (process_work.returns, closes_over),
        (process_work.returns, here),
        (process_work.returns, 1, 2),
        (process_work.returns_a_lock,),
        (process_work.count_and_return_a_lock,),
        (process_work.counted,),
    ):
        try:
            outcome = interpreter.call(work, *args)
            outcome = outcome if isinstance(outcome, int) else type(outcome)
        except Exception as error:
            outcome = type(error), str(error).strip().splitlines()[0].split(" at 0x")[0]
        found.append(outcome)
    return found


def test_what_cannot_cross_fails_as_without_us(interpreter, tracer):
    """Calls, arguments and results that cannot cross fail as they would, and are made once."""
    plain = outcomes(interpreter)
    ConcurrencyInstrumentor().instrument()
    try:
        with span_and_baggage(tracer):
            ours = outcomes(interpreter)
    finally:
        ConcurrencyInstrumentor().uninstrument()
    assert ours[:-1] == plain[:-1]
    assert (plain[-1], ours[-1]) == (1, 2)


def test_builtins_use_the_namespace_of_the_interpreter(interpreter, instrumented, tracer):
    """`exec`, `eval` and their like are not carried: they work on the names of the caller."""
    with span_and_baggage(tracer):
        seen_in(interpreter)
        interpreter.call(exec, "number = 42")
        assert interpreter.call(eval, "number") == 42
        assert "number" in interpreter.call(dir)


def test_an_interpreter_without_the_library_does_the_work(instrumented, tracer, caplog):
    """Where it cannot be imported calls run all the same, and one line says so."""
    alone = interpreters.create()
    alone.call(exec, "import sys; sys.path[:] = []; sys.meta_path[2:] = []")
    with span_and_baggage(tracer):
        assert [alone.call(lambda: 42) for _ in range(5)] == [42] * 5
    alone.close()
    assert len(caplog.records) == 1


# --- queues ---

ITEMS = {
    "a number": 1,
    "text": "text",
    "bytes": b"bytes",
    "None": None,
    "a tuple": (1, ("two", 3.0)),
    "a list": [1, {"two": 3}],
    "a function": process_work.look,
    "a large number": 1 << 100,
}


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_carries_its_context_to_another_interpreter(
    item, interpreter, instrumented, tracer
):
    """It arrives as it is, and who gets it there is in the context in which it was put."""
    queue = interpreters.create_queue()
    with span_and_baggage(tracer) as expected:
        seen_in(interpreter)  # which is instrumented by now
        queue.put(ITEMS[item])
        queue.put_nowait(ITEMS[item])
    with no_context(tracer):
        queue.put(ITEMS[item])
        got = interpreter.call(process_work.get_and_look, queue, 3)
    assert [one for one, _ in got] == [ITEMS[item]] * 3
    assert [Sight(*seen) for _, seen in got] == [expected, expected, NOTHING]


def test_an_item_carries_its_context_back(interpreter, instrumented, tracer):
    """A consumer here adopts what was put there, and lets go when it asks for the next."""
    queue = interpreters.create_queue()
    with span_and_baggage(tracer) as expected:
        interpreter.call(process_work.put_all, queue, [1, 2])
    queue.put("last")
    seen = []
    for get in (queue.get, queue.get_nowait, queue.get):
        seen.append((get(), process_work.look()))
    assert [one for one, _ in seen] == [1, 2, "last"]
    found = [(one.parent, one.baggage) for _, one in seen]
    assert found == [(expected.parent, expected.baggage)] * 2 + [(None, ())]


def test_an_item_for_an_interpreter_without_the_library_is_plain(instrumented, tracer):
    """It gets the item, and imports nothing of ours."""
    plain = interpreters.create()
    queue = interpreters.create_queue()
    with span_and_baggage(tracer):
        queue.put({"an": "item"})

    def get(queue):
        import sys

        item = queue.get()
        return item, [name for name in sys.modules if "otel" in name or "opentelemetry" in name]

    with no_context(tracer):
        assert plain.call(get, queue) == ({"an": "item"}, [])
    plain.close()


def test_what_stays_shared_stays_shared(instrumented, tracer):
    """A memoryview and a queue are the same on both sides, also inside a tuple."""
    queue, inner = interpreters.create_queue(), interpreters.create_queue()
    data = bytearray(b"data")
    with span_and_baggage(tracer):
        queue.put(memoryview(data))
        queue.put((inner, 1))
        queue.put(inner)
    view = queue.get()
    data[:] = b"DATA"
    assert bytes(view) == b"DATA"
    assert queue.get() == (inner, 1)
    assert queue.get() is inner


class GetsAnother:
    """Gets an item from another queue where it is unpickled."""

    queue = None

    def __reduce__(self):
        return GetsAnother._get, ()

    @classmethod
    def _get(cls):
        return cls.queue.get(), process_work.look()


@pytest.mark.parametrize("situation", [span_and_baggage, no_context])
def test_an_item_that_is_got_in_the_middle_of_another_is_apart(
    situation, instrumented, tracer, monkeypatch
):
    """Neither has the context of the other one."""
    outer, another = interpreters.create_queue(), interpreters.create_queue()
    monkeypatch.setattr(GetsAnother, "queue", another)
    with span_and_baggage(tracer) as of_another:
        another.put({"an": "item"})
    with situation(tracer) as expected:
        outer.put(GetsAnother())

    def consume():
        (_, first), second = outer.get(), process_work.look()
        return Sight(*first), Sight(*second)

    assert contextvars.Context().run(consume) == (of_another, expected)


def test_what_cannot_be_put_fails_as_without_us(instrumented, tracer):
    """With the same error; a full queue and an empty one say so."""
    queue = interpreters.create_queue(1)
    with span_and_baggage(tracer):
        with pytest.raises(interpreters.NotShareableError):
            queue.put(threading.Lock())
        queue.put(1)
        with pytest.raises(interpreters.QueueFull):
            queue.put_nowait(2)
        with pytest.raises(interpreters.QueueFull):
            queue.put(2, timeout=0)
        assert queue.get(False) == 1
        with pytest.raises(interpreters.QueueEmpty):
            queue.get(block=False)
        with pytest.raises(interpreters.QueueEmpty):
            queue.get(timeout=0)


def test_queues_outlive_the_switch(tracer):
    """What was put while the library was on is got when it is off, and the other way round."""
    instrumentor = ConcurrencyInstrumentor()
    queue = interpreters.create_queue()
    with span_and_baggage(tracer):
        instrumentor.instrument()
        queue.put(1)
        instrumentor.uninstrument()
        queue.put(2)
    assert queue.get() == 1
    instrumentor.instrument()
    with no_context(tracer):
        assert queue.get() == 2
        assert process_work.look() == NOTHING
    instrumentor.uninstrument()
