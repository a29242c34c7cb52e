"""What holds for whatever is handed off through a library, in whichever of its ways.

A library's tests say how that is done, in a class that derives from :class:`Calls` or
:class:`Items`; the expectations are here.
"""

from __future__ import annotations

import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._linking import origins as _links

WAIT = 20
"""Seconds after which something that is waited for will not happen any more."""

ON = "from otel_concurrency import ConcurrencyInstrumentor as I\nI().instrument()\n"
IMPORT_FIRST = "import {module}\n" + ON
INSTRUMENT_FIRST = ON + "import {module}\n"
IN_BOTH_ORDERS = pytest.mark.parametrize(
    "first", [IMPORT_FIRST, INSTRUMENT_FIRST], ids=["imported first", "instrumented first"]
)


def outside(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function`` where nothing is attached."""
    return contextvars.Context().run(function, *args)


Answers = list[tuple[Any, Exception | None]]


def answering(work: Callable[[], Any], answers: Answers) -> Callable[..., None]:
    """Return a callback that does the work, whatever it is passed, and keeps what came of it."""

    def answer(*_: Any) -> None:
        try:
            answers.append((work(), None))
        except Exception as error:
            answers.append((None, error))

    return answer


def answer_of(answers: Answers) -> Any:
    """Return what came of the only piece of work, or raise it."""
    ((result, error),) = answers
    try:
        if error is not None:
            raise error
        return result
    finally:
        del error  # or the frame, which the exception refers to, would refer to it


def run_program(program: str, *arguments: str, directory: Any = None, timeout: float = 100) -> str:
    """Run a program in a process of its own; return what it printed.

    With a ``directory`` it is a file there, which worker processes can import.
    """
    command = ["-c", program]
    if directory is not None:
        file = directory / "program.py"
        file.write_text(program, encoding="utf-8")
        command = [str(file)]
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "left alone" not in done.stderr, done.stderr
    assert "OpenTelemetry" not in done.stderr, done.stderr
    return done.stdout


def check_undo(*owners: Any) -> None:
    """Check that each owner is another when switched on, and in all attributes as before when off.

    As it was is by identity: what stands for a function may well be equal to it.
    """
    before = [dict(vars(owner)) for owner in owners]
    for _ in range(2):
        ConcurrencyInstrumentor().instrument()
        assert all(map(_changed, owners, before))
        ConcurrencyInstrumentor().uninstrument()
        assert list(map(_changed, owners, before)) == [set()] * len(owners)


def _changed(owner: Any, was: dict[str, Any]) -> set[str]:
    """Return the names of the attributes that are not what they were."""
    now = dict(vars(owner))
    return {name for name in was.keys() | now.keys() if now.get(name) is not was.get(name)}


class Calls:
    """A way of a library to have a callable called."""

    setting: ClassVar[str]
    """The primitive that it goes by."""

    needs_adapter: ClassVar[bool] = True
    """Whether it is not covered with the standard library."""

    def hand_off(self, work: Callable[[], Any]) -> Any:
        """Hand ``work`` off, wait for its end, and return what it returned."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def worker(self):
        """Give the hand-offs of a test a worker, where the library has one."""

    @pytest.mark.decisive
    def test_the_work_is_done_in_the_context_that_it_was_handed_off_in(self, instrument, tracer):
        """A span of the work is a child, with the baggage, wherever the worker was made."""
        instrument()

        def work():
            with tracer.start_as_current_span("work") as span:
                return span.parent, baggage.get_baggage("tenant")

        for name in ("acme", "umbrella"):
            token = context.attach(baggage.set_baggage("tenant", name))
            with tracer.start_as_current_span("origin") as origin:
                parent, tenant = self.hand_off(work)
            context.detach(token)
            assert (parent.span_id, tenant) == (origin.get_span_context().span_id, name)

    def test_a_worker_made_outside_of_spans_carries_too(self, instrument, tracer):
        """The first hand-off, without context, neither gets nor leaves anything."""
        instrument()
        assert not outside(self.hand_off, context.get_current)
        with tracer.start_as_current_span("origin") as origin:
            assert self.hand_off(trace.get_current_span) is origin

    @pytest.mark.decisive
    def test_nothing_is_left_to_the_next_work(self, instrument, tracer):
        """Work without context has none, after work that had, forgets to detach, and fails."""
        instrument()

        def forgetful():
            context.attach(context.set_value("forgotten", 1))

        with tracer.start_as_current_span("origin"):
            self.hand_off(forgetful)
        assert not outside(self.hand_off, context.get_current)
        assert not context.get_current()

    def test_under_link_the_work_is_a_trace_of_its_own(self, instrument, tracer):
        """It has a link to its origin, and the baggage."""
        instrument(**{self.setting: "link"})

        def work():
            span = tracer.start_span("work")
            return span.parent, span.links, baggage.get_baggage("tenant")

        token = context.attach(baggage.set_baggage("tenant", "acme"))
        with tracer.start_as_current_span("origin") as origin:
            parent, links, tenant = self.hand_off(work)
        context.detach(token)
        assert parent is None
        assert [link.context.span_id for link in links] == [origin.get_span_context().span_id]
        assert links[0].attributes[_links.PRIMITIVE] == self.setting
        assert tenant == "acme"

    def test_nothing_refers_to_the_span_when_the_work_is_done(self, instrument, tracer):
        """One shot: neither the worker nor what was handed back keeps it alive."""
        instrument()
        kept = []

        def in_span():
            with tracer.start_as_current_span("origin") as span:
                kept.append(self.hand_off(int))
                return weakref.ref(span)

        reference = in_span()
        outside(self.hand_off, int)
        gc.collect()
        assert reference() is None

    def test_what_the_work_returns_and_raises_is_its_own(self, instrument, tracer):
        """Results and exceptions are the very objects."""
        instrument()
        thing, error = object(), ValueError("the work's")

        def fail():
            raise error

        with tracer.start_as_current_span("origin"):
            assert self.hand_off(lambda: thing) is thing
            with pytest.raises(ValueError, match="the work's"):
                self.hand_off(fail)
        assert not outside(self.hand_off, context.get_current)

    @pytest.mark.parametrize("how", ["policy", "adapter", "after uninstrument()"])
    def test_switched_off_it_carries_nothing(self, how, instrument, tracer):
        """By its policy, by its name among the adapters, or with all of the library."""
        if how == "policy":
            instrument(**{self.setting: "off"})
        elif how == "adapter":
            instrument(adapters="-*")
        else:
            instrument()
            instrument.__self__.uninstrument()
        with tracer.start_as_current_span("origin"):
            carried = bool(self.hand_off(context.get_current))
        assert carried is (how == "adapter" and not self.needs_adapter)


class Items:
    """A kind of queue of a library's."""

    setting: ClassVar[str] = "queue"
    tells_twins: ClassVar[bool] = True
    """Whether it is known of the same object that is there twice which of the two comes out."""
    is_stack: ClassVar[bool] = False
    """Whether the last one in is the first one out."""

    def make(self, size: int = 0) -> Any:
        """Return a queue."""
        raise NotImplementedError

    def put(self, queue: Any, item: Any) -> None:
        """Put an item."""
        queue.put(item)

    def get(self, queue: Any) -> Any:
        """Get an item that is there."""
        return queue.get()

    def run(self, *flows: Callable[[], Any]) -> list[Any]:
        """Run each flow in a worker of its own at once, in no context; return their results."""
        results: list[Any] = [None] * len(flows)

        def run(place: int) -> None:
            results[place] = outside(flows[place])

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(flows))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        return results

    def put_in_spans(self, queue: Any, tracer: Any, items: list[Any]) -> list[int]:
        """Put each item in a span of its own; return the ids of these."""
        ids = []
        for item in items:
            with tracer.start_as_current_span("put", context=Context()) as span:
                self.put(queue, item)
            ids.append(span.get_span_context().span_id)
        return ids

    @pytest.mark.decisive
    def test_an_item_is_handled_in_the_context_in_which_it_was_put(self, instrument, tracer):
        """Each of several items, equal ones among them, under its own producer."""
        instrument()

        def flow():
            queue = self.make()
            ids = self.put_in_spans(queue, tracer, [1, 1, 2, 3])
            parents = {}
            for _ in ids:
                item = self.get(queue)
                span = tracer.start_span("work")
                parents.setdefault(item, []).append(span.parent and span.parent.span_id)
            twins = ids[1::-1] if self.is_stack else ids[:2]
            return parents == {1: twins, 2: ids[2:3], 3: ids[3:]} or (parents, ids)

        assert self.run(flow) == [True]

    @pytest.mark.decisive
    def test_an_item_without_context_is_nobodys(self, instrument, tracer):
        """It is not handled in the context of the item before, nor is anything left after it."""
        instrument()

        def flow():
            queue = self.make()
            self.put_in_spans(queue, tracer, ["traced"])
            self.get(queue)
            seen = [bool(context.get_current())]
            self.put_untraced(queue, "plain")
            self.get(queue)
            return [*seen, bool(context.get_current())]

        assert self.run(flow) == [[True, False]]

    def put_untraced(self, queue: Any, item: Any) -> None:
        """Put an item in no context."""
        token = context.attach(Context())
        self.put(queue, item)
        context.detach(token)

    def test_under_load_nothing_has_to_be_empty_first(self, instrument, tracer):
        """What was in the queue before has no context; each of 200 items after it has its own."""
        instrument()

        def flow():
            queue = self.make()
            expected, seen = {}, {}

            def handle():
                item = self.get(queue)
                span = tracer.start_span("work")
                seen[item] = span.parent and span.parent.span_id

            for number in range(1000, 1203):
                if number < 1003 or number % 7 == 0:
                    self.put_untraced(queue, number)
                    expected[number] = None
                else:
                    (expected[number],) = self.put_in_spans(queue, tracer, [number])
                if number > 1002:
                    handle()
            for _ in range(3):
                handle()
            return seen == expected or (seen, expected)

        assert self.run(flow) == [True]

    def test_identical_items_behind_one_that_has_no_context(self, instrument, tracer):
        """That one is handled without a context, and each of the others in one of its own.

        Where they cannot be told apart none of them has one.
        """
        instrument()

        def flow():
            queue = self.make()
            self.put_untraced(queue, 1)
            ids = self.put_in_spans(queue, tracer, [1, 1])
            expected = {None, *ids} if self.tells_twins else {None}
            seen = set()
            for _ in range(3):
                self.get(queue)
                span = tracer.start_span("work")
                seen.add(span.parent and span.parent.span_id)
            return seen == expected or (seen, expected)

        assert self.run(flow) == [True]

    @pytest.mark.decisive
    def test_baggage_alone_is_carried(self, instrument):
        """Any key of the context comes with the item."""
        instrument()

        def flow():
            queue = self.make()
            token = context.attach(baggage.set_baggage("tenant", "acme"))
            self.put(queue, 1)
            context.detach(token)
            self.get(queue)
            return baggage.get_baggage("tenant")

        assert self.run(flow) == ["acme"]

    def test_a_flow_with_a_live_span_keeps_it(self, instrument, tracer):
        """Who collects results inside its own span stays in that."""
        instrument()

        def flow():
            queue = self.make()
            self.put_in_spans(queue, tracer, [1])
            with tracer.start_as_current_span("own") as own:
                self.get(queue)
                return trace.get_current_span() is own

        assert self.run(flow) == [True]

    def get_nowait(self, queue: Any) -> Any:
        """Get an item if one is there; raise otherwise."""
        return queue.get_nowait()

    def is_empty(self, queue: Any) -> bool:
        """Whether there is nothing to get."""
        try:
            self.get_nowait(queue)
        except Exception:
            return True
        return False

    @pytest.mark.parametrize("filled", [True, False])
    def test_a_thing_that_comes_back_is_nobodys(self, filled, instrument, tracer):
        """A connection that a request has used, or made, is no work for whoever takes it next."""
        instrument()

        def flow():
            things, parents = self.make(2), []
            if filled:
                self.put_untraced(things, [1])
            for n in range(3):
                token = context.attach(baggage.set_baggage("tenant", "acme", Context()))
                with tracer.start_as_current_span("request"):
                    if filled or n:
                        thing = self.get_nowait(things)
                    else:
                        thing = [2]
                        assert self.is_empty(things)
                    self.put(things, thing)
                context.detach(token)
                thing = self.get_nowait(things)
                span = tracer.start_span("check")
                parents.append(span.parent or baggage.get_baggage("tenant"))
                self.put(things, thing)
            return parents

        assert self.run(flow) == [[None, None, None]]

    def test_a_job_that_is_put_back_keeps_its_producer(self, instrument, tracer):
        """At the first try and at the tenth, whether inside the span of a try or after it."""
        instrument()

        def flow():
            queue = self.make(3)
            (producer,) = self.put_in_spans(queue, tracer, [["job"]])
            parents = set()
            for n in range(10):
                job = self.get(queue)
                with tracer.start_as_current_span("try") as span:
                    parents.add(span.parent and span.parent.span_id)
                    if n % 2:
                        self.put(queue, job)
                if not n % 2:
                    self.put(queue, job)
            return parents == {producer}

        assert self.run(flow) == [True]

    def test_under_link_an_item_starts_a_trace_of_its_own(self, instrument, tracer):
        """Its spans have a link to the producer's."""
        instrument(**{self.setting: "link"})

        def flow():
            queue = self.make()
            ids = self.put_in_spans(queue, tracer, [1])
            self.get(queue)
            span = tracer.start_span("work")
            return span.parent is None and [link.context.span_id for link in span.links] == ids

        assert self.run(flow) == [True]

    def test_a_queue_that_is_empty_keeps_no_span_alive(self, instrument, tracer):
        """Once an item is got, and the next one asked for, its span dies with its last user."""
        instrument()
        kept = []

        def flow():
            queue = self.make()
            kept.append(queue)
            with tracer.start_as_current_span("put", context=Context()) as span:
                self.put(queue, 1)
            reference = weakref.ref(span)
            del span
            self.get(queue)
            self.put_untraced(queue, 2)
            self.get(queue)
            return reference

        (reference,) = self.run(flow)
        gc.collect()
        assert reference() is None

    @pytest.mark.parametrize("how", ["policy", "adapter", "after uninstrument()"])
    def test_switched_off_it_carries_nothing(self, how, instrument, tracer):
        """By its policy, by its name among the adapters, or with all of the library."""
        if how == "policy":
            instrument(**{self.setting: "off"})
        elif how == "adapter":
            instrument(adapters="-*")
        else:
            instrument()
            instrument.__self__.uninstrument()

        def flow():
            queue = self.make()
            self.put_in_spans(queue, tracer, [1])
            return self.get(queue), bool(context.get_current())

        assert self.run(flow) == [(1, False)]


PROCESSES = """
import os, sys
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["SPANS"], "a") as file:
            for span in spans:
                parent = span.parent and f"{span.parent.span_id:x}"
                links = [f"{link.context.span_id:x}" for link in span.links]
                me = f"{span.context.span_id:x}"
                print(span.name.replace(" ", "_"), me, parent, *links, os.getpid(), file=file)
        return SpanExportResult.SUCCESS

provider = TracerProvider()
processor = SimpleSpanProcessor if "AT_ONCE" in os.environ else BatchSpanProcessor
provider.add_span_processor(processor(ToFile()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("tests")

def work(*_):
    if not context.get_current():
        with tracer.start_as_current_span("alone"):
            context.attach(context.set_value("forgotten", 1))
        return [0, None, os.getpid()]
    with tracer.start_as_current_span("work") as span:
        context.attach(context.set_value("forgotten", 1))
        parent = span.parent and span.parent.span_id
        return [parent, baggage.get_baggage("tenant"), os.getpid()]

def nothing():
    return dict(context.get_current())

def clean(*_):
    return sorted(map(str, context.get_current()))

def check(hand_off, rounds=2):
    # Without context first, so that the workers are nobody's; then in one and in none, in turns.
    pids = {hand_off(work)[2]}
    for tenant in ["acme", "umbrella"][:rounds]:
        token = context.attach(baggage.set_baggage("tenant", tenant))
        with tracer.start_as_current_span("origin") as span:
            parent, seen, pid = hand_off(work)
        context.detach(token)
        assert (parent, seen) == (span.get_span_context().span_id, tenant), (parent, seen)
        pids.add(pid)
        left = hand_off(clean)
        assert left == [], left
    assert os.getpid() not in pids
    print("carried")

def check_off(hand_off):
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    assert hand_off(clean) == []
    context.detach(token)
    print("not carried")

def switch_on(**settings):
    from otel_concurrency import ConcurrencyInstrumentor
    ConcurrencyInstrumentor().instrument(**settings)
"""
"""A module for programs that hand work to processes, and for these."""


def spans_of(program: str, directory: Any, monkeypatch: Any) -> tuple[str, list[list[str]]]:
    """Run a program that has :data:`PROCESSES`; return its output and the spans of all."""
    file = directory / "spans"
    file.write_text("")
    monkeypatch.setenv("SPANS", str(file))
    (directory / "suite_work.py").write_text(PROCESSES, encoding="utf-8")
    printed = run_program("from suite_work import *\n" + program, directory=directory)
    return printed, [line.split() for line in file.read_text(encoding="utf-8").splitlines()]


def check_processes(hand_off: str, directory: Any, monkeypatch: Any) -> None:
    """Check a way to hand a function to a process: ``hand_off`` defines ``hand_off(function)``.

    Each task has its parent and its baggage and leaves nothing; the spans of workers arrive; with
    ``link`` there are links, and switched off nothing is carried.
    """
    program = """
if __name__ == "__main__":
    switch_on()
    from suite_hand_off import hand_off, close
    check(hand_off)
    close()
"""
    (directory / "suite_hand_off.py").write_text(hand_off, encoding="utf-8")
    printed, spans = spans_of(program, directory, monkeypatch)
    assert printed == "carried\n"
    origins = [me for name, me, *_ in spans if name == "origin"]
    assert sorted(parent for name, _, parent, *_ in spans if name == "work") == sorted(origins)
    assert [name for name, *_ in spans if name == "alone"] == ["alone"]


def check_processes_under_link(hand_off: str, directory: Any, monkeypatch: Any) -> None:
    """Check that under ``link`` the work is a trace of its own, linked to its origin."""
    (directory / "suite_hand_off.py").write_text(hand_off, encoding="utf-8")
    program = """
if __name__ == "__main__":
    switch_on(multiprocessing="link")
    from suite_hand_off import hand_off, close
    with tracer.start_as_current_span("origin"):
        hand_off(work)
    close()
"""
    _, spans = spans_of(program, directory, monkeypatch)
    (origin,) = (me for name, me, *_ in spans if name == "origin")
    ((_, _, parent, link, _),) = (span for span in spans if span[0] == "work")
    assert (parent, link) == ("None", origin)


def check_processes_off(hand_off: str, directory: Any, monkeypatch: Any) -> None:
    """Check that nothing is carried where the adapter is left out, nor where the primitive is."""
    (directory / "suite_hand_off.py").write_text(hand_off, encoding="utf-8")
    for settings in ('adapters="-*"', 'multiprocessing="off"'):
        program = f"""
if __name__ == "__main__":
    switch_on({settings})
    from suite_hand_off import hand_off, close
    hand_off(clean)
    check_off(hand_off)
    close()
"""
        assert spans_of(program, directory, monkeypatch)[0] == "not carried\n"
