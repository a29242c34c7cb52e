"""Generators that hold a context beside others that look into the interpreter: odd places, too."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach, get_current, set_value
from test_generators import found

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import compiled
from otel_concurrency._generators import monitoring, suspension

pytestmark = pytest.mark.skipif(
    not monitoring.IS_THERE, reason="before CPython 3.12 a suspension is not heard of"
)

IDS = range(6)


@pytest.fixture
def instrumented(instrument):
    """Switch it on for each test anew: whether a tool id is taken is what some are about."""
    instrument()
    return ConcurrencyInstrumentor()


def holding(tracer, values=3):
    """Hold a span over each yield, and yield its name as a parent would be named."""
    with tracer.start_as_current_span("generator"):
        for _ in range(values):
            yield current_name()


def by_hand(values=3):
    """Attach, never detach, and yield what is current."""
    attach(set_value("whose", "generator"))
    for _ in range(values):
        yield get_current().get("whose")


def current_name():
    """Return the name of the span that is current, if there is one."""
    return getattr(trace.get_current_span(), "name", None)


@contextlib.contextmanager
def taken(*ids):
    """Take tool ids, as other tools do."""
    for tool_id in ids:
        sys.monitoring.use_tool_id(tool_id, f"other {tool_id}")
    try:
        yield
    finally:
        for tool_id in ids:
            sys.monitoring.free_tool_id(tool_id)


def ids_of_ours():
    """Return the tool ids that the library has."""
    return [one for one in IDS if sys.monitoring.get_tool(one) == "otel-concurrency"]


def free_ids():
    """Return the tool ids that nobody has: the tests may run under coverage."""
    return [one for one in IDS if sys.monitoring.get_tool(one) is None]


def test_no_id_is_taken_until_a_generator_holds_something(instrumented, tracer):
    """A program without such generators has all tool ids; they are free again afterwards."""
    before = free_ids()
    with tracer.start_as_current_span("plain"):
        assert list(x for x in range(3)) == [0, 1, 2]  # noqa: C400 - a generator
    assert free_ids() == before
    list(holding(tracer))
    assert len(ids_of_ours()) == 1
    instrumented.uninstrument()
    assert free_ids() == before


def test_another_id_is_taken_where_some_are(instrumented, tracer):
    """Tools that have taken their ids first keep them."""
    *others, _ = free_ids()
    with taken(*others):
        generator = holding(tracer)
        assert next(generator) == "generator"
        assert current_name() is None
        generator.close()
        instrumented.uninstrument()


def test_where_all_ids_are_taken_it_is_off_with_one_warning(instrumented, tracer, caplog):
    """Nothing fails, nothing is logged but once, and nobody is put into a context that is over."""
    with taken(*free_ids()), caplog.at_level(logging.WARNING):
        for _ in range(3):
            generator = holding(tracer)
            assert next(generator) == "generator"
            with tracer.start_as_current_span("consumer"):
                closing = threading.Thread(target=generator.close)
                closing.start()
                closing.join()
                gc.collect()
                assert current_name() == "consumer"
    (record,) = caplog.records
    assert "tool ids" in record.getMessage()
    assert "'other" in record.getMessage()
    attach(suspension._default(found().suspensions._variable))


@pytest.mark.parametrize("order", ["before", "after"])
def test_another_tool_with_the_same_events_sees_what_it_sees_without(order, instrumented, tracer):
    """Events of other tools are neither lost nor added, also for the same code."""
    seen = []
    mine, *_ = reversed(free_ids())
    events = sys.monitoring.events

    def use():
        sys.monitoring.use_tool_id(mine, "other")
        for name in ("PY_YIELD", "PY_RESUME", "PY_RETURN"):
            event = getattr(events, name)
            callback = lambda code, *_, name=name: seen.append(name)  # noqa: E731
            sys.monitoring.register_callback(mine, event, callback)
            sys.monitoring.set_local_events(
                mine, holding.__code__, events.PY_YIELD | events.PY_RESUME | events.PY_RETURN
            )

    try:
        if order == "before":
            use()
        list(holding(tracer))
        if order == "after":
            use()
        seen.clear()
        generator = holding(tracer)
        assert [next(generator), current_name()] == ["generator", None]
        assert [next(generator), current_name()] == ["generator", None]
        assert seen == ["PY_YIELD", "PY_RESUME", "PY_YIELD"]
        instrumented.uninstrument()
        seen.clear()
        list(holding(tracer, 1))
        assert seen == ["PY_YIELD", "PY_RESUME", "PY_RETURN"]
        generator.close()
    finally:
        sys.monitoring.set_local_events(mine, holding.__code__, 0)
        for name in ("PY_YIELD", "PY_RESUME", "PY_RETURN"):
            sys.monitoring.register_callback(mine, getattr(events, name), None)
        sys.monitoring.free_tool_id(mine)


def test_restarted_events_change_nothing(instrumented, tracer):
    """Another tool may call `restart_events()` at any time."""
    generator = holding(tracer)
    for _ in range(3):
        assert [next(generator), current_name()] == ["generator", None]
        sys.monitoring.restart_events()
    assert list(generator) == []


@pytest.mark.parametrize("setter", [sys.settrace, sys.setprofile], ids=["settrace", "setprofile"])
def test_under_a_trace_function(setter, instrumented, tracer):
    """A debugger or profiler of the old kind sees the generator, and its contexts are right."""
    seen, before = [], (sys.gettrace(), sys.getprofile())

    def watch(frame, event, argument):
        if frame.f_code is holding.__code__:
            seen.append(event)
        return watch

    setter(watch)
    try:
        generator = holding(tracer)
        first = next(generator), current_name()
        second = next(generator), current_name()
        generator.close()
    finally:
        setter({sys.settrace: before[0], sys.setprofile: before[1]}[setter])
    assert first == second == ("generator", None)
    assert "call" in seen
    assert "return" in seen


@pytest.mark.parametrize("setter", [sys.settrace, sys.setprofile], ids=["settrace", "setprofile"])
def test_closed_where_no_event_is_sent(setter, instrumented, tracer, caplog):
    """What it attaches while it is closed there makes nothing fail that it had attached before.

    So it is in a callback of `sys.monitoring` and in an audit hook, where the collector may come.
    """

    def stream():
        with tracer.start_as_current_span("stream"):
            try:
                yield
            finally:
                token = attach(set_value("whose", "cleanup"))
                whose.append(get_current().get("whose"))
                detach(token)

    def close(*_):
        while generators:
            generators.pop().close()

    whose, generators = [], [stream()]
    next(generators[0])
    before = sys.gettrace(), sys.getprofile()

    def elsewhere():
        with tracer.start_as_current_span("stranger"):
            setter(close)
            try:
                current_name()
            finally:
                setter({sys.settrace: before[0], sys.setprofile: before[1]}[setter])
            assert current_name() == "stranger"

    with caplog.at_level(logging.WARNING):
        contextvars.Context().run(elsewhere)
    assert whose == ["cleanup"]
    assert not caplog.records
    kept = found().suspensions
    assert kept.by_frame == kept.by_token == kept.without_frame == {}


@pytest.mark.skipif(
    compiled.functions is None, reason="collections are heard of with the compiled part"
)
def test_collected_while_another_generator_is_resumed(instrumented, tracer, exporter, no_collector):
    """What the library does for that one may be what makes the collector run: no event is sent."""

    def left(itself):
        with tracer.start_as_current_span("left"):
            try:
                yield
            finally:
                tracer.start_span("cleanup").end()

    def resumed():
        with tracer.start_as_current_span("resumed"):
            while True:
                yield

    stream = resumed()
    with tracer.start_as_current_span("request"):
        next(stream)
        for _ in range(400):
            itself = []
            itself.append(left(itself))
            next(*itself)
        del itself
        gc.enable()
        for _ in range(20):  # what comes first that makes an object which the collector counts
            next(stream)
        assert current_name() == "request"
    gc.collect()
    named = {span.context.span_id: span.name for span in exporter.get_finished_spans()}
    parents = [span.parent for span in exporter.get_finished_spans() if span.name == "cleanup"]
    assert len(parents) == 400
    assert {parent and named[parent.span_id] for parent in parents} <= {None, "left"}


def test_a_span_that_is_ended_inside_attaches_nothing_for_the_generator(instrumented, tracer):
    """What a span processor attaches and detaches is not taken for what may stay attached."""

    def stream():
        with tracer.start_as_current_span("stream"):
            for _ in range(2):
                make(tracer)
                yield

    def make(tracer):
        tracer.start_span("chunk").end()

    generator = stream()
    for _ in generator:
        (kept,) = found().suspensions.by_frame.values()
        assert not kept.by_hand
        assert len(kept.held) == 1


@pytest.mark.parametrize("make", [holding, lambda tracer: by_hand()], ids=["with", "by hand"])
def test_switched_off_while_suspended_it_goes_on_as_a_plain_one(make, instrumented, tracer):
    """Its values are the same, it runs in its consumer's context, and nothing of it is kept."""
    generator = make(tracer)
    next(generator)
    instrumented.uninstrument()
    assert ids_of_ours() == []
    assert not get_current()
    assert list(generator) == [None, None]
    assert not get_current()
    assert not found().suspensions.by_frame


def test_switched_on_again_it_knows_new_ones(instrumented, tracer):
    """Codes are watched again after switching off and on."""
    for _ in range(3):
        generator = holding(tracer)
        assert [next(generator), current_name()] == ["generator", None]
        generator.close()
        instrumented.uninstrument()
        instrumented.instrument()


def test_a_frame_can_be_looked_at(instrumented, tracer):
    """A debugger reads the frame of a suspended generator, and finds the program's names alone."""
    generator = holding(tracer)
    next(generator)
    frame = generator.gi_frame
    assert set(frame.f_locals) == {"tracer", "values", "_"}
    assert frame.f_trace is None
    assert next(generator) == "generator"
    generator.close()
    assert generator.gi_frame is None


def test_deep_recursion_of_generators(instrumented, tracer):
    """Values come through as many delegating generators as without the library, nearly."""

    def nested(depth):
        with tracer.start_as_current_span(str(depth)):
            if depth:
                yield from nested(depth - 1)
            else:
                yield trace.get_current_span().name

    generator = nested(200)
    assert next(generator) == "0"
    assert current_name() is None
    assert list(generator) == []
    assert not found().suspensions.by_frame


@pytest.mark.parametrize("error", [MemoryError, RecursionError, TypeError])
def test_a_fault_in_a_callback_leaves_the_values_alone(
    error, instrumented, tracer, monkeypatch, caplog
):
    """Whatever fails there, the generator yields what it yields; it is reported once."""

    class Failing:
        def get(self):
            raise error("injected")

        set = reset = get

    list(holding(tracer))  # so that the code is watched
    suspensions = found().suspensions
    variable = suspensions._variable
    generators = [holding(tracer), holding(tracer)]
    monkeypatch.setattr(suspensions, "_variable", Failing())
    values = [next(generator) for generator in generators]
    monkeypatch.setattr(suspensions, "_variable", variable)
    assert values == ["generator"] * 2
    assert [list(generator) for generator in reversed(generators)] == [["generator"] * 2] * 2
    assert ["injected" in record.getMessage() for record in caplog.records] == [True]


def test_an_interrupt_that_is_thrown_in_comes_out(instrumented, tracer):
    """`KeyboardInterrupt` comes out of the generator, and the consumer is where it was."""
    generator = holding(tracer)
    next(generator)
    with tracer.start_as_current_span("consumer"):
        with pytest.raises(KeyboardInterrupt):
            generator.throw(KeyboardInterrupt)
        assert current_name() == "consumer"
    assert not found().suspensions.by_frame


def test_what_a_generator_refers_to_dies_with_it(instrumented, tracer, no_collector):
    """Neither a finished, nor a closed, nor a dropped generator leaves anything behind."""

    class Thing:
        pass

    def kept(thing, finish):
        finish(thing)
        with tracer.start_as_current_span("generator"):
            yield
            yield

    for end in (list, lambda generator: generator.close(), lambda generator: None):
        references = []
        generator = kept(Thing(), lambda thing, r=references: r.append(weak_reference(thing)))
        next(generator)
        end(generator)
        del generator
        assert references[0]() is None
    assert not found().suspensions.by_frame
    assert not found().suspensions.by_token


def test_what_never_detaches_dies_with_its_generator(instrumented, no_collector):
    """A dropped generator that has attached by hand, without a handler, frees its variables."""

    class Thing:
        pass

    references, freed_by_close = [], {}

    def kept(thing, attaches):
        references.append(weak_reference(thing))
        if attaches:
            attach(set_value("whose", "generator"))
        yield
        yield

    for closes, attaches in ((True, False), (False, True), (True, True)):
        generator = kept(Thing(), attaches)
        next(generator)
        next(generator)
        assert not get_current()
        if closes:
            generator.close()
            freed_by_close[attaches] = references[-1]() is None  # the generator is still there
        del generator
        assert references[-1]() is None
    assert freed_by_close[True] == freed_by_close[False]  # CPython 3.12.3 does not free them
    assert not found().suspensions.by_frame
    assert not found().suspensions.without_frame
    assert not found().suspensions.by_token


def test_a_finished_consumers_context_is_not_kept(instrumented, tracer, no_collector):
    """While it is suspended, a generator keeps nothing of who has resumed it last."""

    class Thing:
        pass

    generator = holding(tracer)
    next(generator)
    thing = Thing()
    reference = weak_reference(thing)
    token = attach(set_value("thing", thing))
    del thing
    next(generator)
    detach(token)
    del token
    assert reference() is None
    generator.close()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another thread"])
def test_variables_that_are_copied_into_a_generator(elsewhere, instrumented, tracer, caplog):
    """Agents take over all variables of a task of theirs: the context that came so is kept, too."""
    task = contextvars.copy_context()
    task.run(attach, trace.set_span_in_context(tracer.start_span("task")))

    def copying():
        with tracer.start_as_current_span("generator"):
            for variable, value in task.items():
                variable.set(value)
            yield current_name()
            yield current_name()

    with tracer.start_as_current_span("consumer"):
        generator = copying()
        for _ in range(2):
            assert [next(generator), current_name()] == ["task", "consumer"]
        closing = threading.Thread(target=generator.close)
        if elsewhere:
            closing.start()
            closing.join()
        else:
            generator.close()
        assert current_name() == "consumer"
    assert not get_current()
    assert not caplog.records
    assert not found().suspensions.by_frame
    assert not found().suspensions.by_token


PROGRAM = """
import sys, os, gc, asyncio, threading
from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import TracerProvider
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument()
tracer = TracerProvider().get_tracer("program")

def holding():
    with tracer.start_as_current_span("generator"):
        while True:
            yield trace.get_current_span().name

generator = holding()
next(generator)
assert not get_current()
"""


def run(program):
    """Run a program with a suspended generator, and return what it says on both streams."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


READ = """
def read():
    values = []
    stream = holding()
    for number in range(3):
        with tracer.start_as_current_span("consumer"):
            values += [next(stream), trace.get_current_span().name]
    stream.close()
    assert values == ["generator", "consumer"] * 3, values
    assert not get_current()
read()
"""


def test_beside_coverage_by_monitoring(tmp_path):
    """Coverage that measures by `sys.monitoring` counts the lines, and generators keep their own.

    From Python 3.14 on it does so by default.
    """
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + READ + "print(sys.monitoring.get_tool(1))")
    coverage = [sys.executable, "-m", "coverage"]
    environment = {**os.environ, "COVERAGE_CORE": "sysmon", "COVERAGE_FILE": str(tmp_path / "data")}
    # The tests may run under coverage themselves.
    environment.pop("COVERAGE_PROCESS_START", None)

    def run(*arguments):
        return subprocess.run(
            [*coverage, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=environment,
            cwd=tmp_path,
        ).stdout

    assert run("run", str(program)) == "coverage.py\n"
    assert "100%" in run("report")


@pytest.mark.parametrize("first", ["debugger", "library"])
def test_beside_a_debugger(first):
    """A debugger traces a thread by `sys.monitoring`, from before a generator is found or after."""
    traces = """
    import debugpy
    debugpy.listen(("127.0.0.1", 0))
    debugpy.trace_this_thread(True)
    assert sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID)
    """
    ends = "generator.close(); print('end', flush=True); os._exit(0)"
    traces = textwrap.dedent(traces)
    program = PROGRAM.replace("generator = holding()", f"{traces}\ngenerator = holding()")
    if first == "library":
        program = PROGRAM + traces
    ended = subprocess.run(
        [sys.executable, "-Xfrozen_modules=off", "-c", f"{program}\n{READ}\n{ends}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "end\n"), ended.stderr


def test_resumed_by_greenlets(instrumented, tracer):
    """Each greenlet has a flow of its own; the generator keeps its context in all of them."""
    from greenlet import greenlet

    def step():
        with tracer.start_as_current_span("greenlet"):
            value = next(generator)
            back.switch()
            return value, current_name()

    back, generator = greenlet.getcurrent(), holding(tracer)
    with tracer.start_as_current_span("consumer"):
        greenlets = [greenlet(step) for _ in range(3)]
        for one in greenlets:
            one.switch()
            assert current_name() == "consumer"
        seen = [one.switch() for one in reversed(greenlets)]
        assert list(generator) == []
        assert current_name() == "consumer"
    assert seen == [("generator", "greenlet")] * 3
    assert not found().suspensions.by_frame


def test_at_interpreter_exit_nothing_is_said():
    """A generator that is suspended when the program ends is closed in silence."""
    ended = run("print('end')")
    assert (ended.stdout, ended.stderr) == ("end\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_a_forked_child_it_goes_on():
    """A suspended generator goes on in a child, and holds its span there and here."""
    ended = run("""
    child = os.fork()
    ok = next(generator) == "generator" and not get_current()
    generator.close()
    ok = ok and not get_current()
    if not child:
        os._exit(not ok)
    assert os.waitpid(child, 0)[1] == 0
    assert ok
    """)
    assert (ended.stdout, ended.stderr) == ("", "")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="interpreters have a public module in 3.14")
def test_in_another_interpreter():
    """An interpreter of its own has tool ids and generators of its own."""
    ended = run("""
    from concurrent.futures import InterpreterPoolExecutor
    def work():
        from opentelemetry import trace
        from opentelemetry.context import get_current
        from opentelemetry.sdk.trace import TracerProvider
        from otel_concurrency import ConcurrencyInstrumentor
        ConcurrencyInstrumentor().instrument()
        tracer = TracerProvider().get_tracer("program")
        def holding():
            with tracer.start_as_current_span("generator"):
                yield trace.get_current_span().name
                yield trace.get_current_span().name
        generator = holding()
        values = next(generator), trace.get_current_span().is_recording(), next(generator)
        generator.close()
        return values
    with InterpreterPoolExecutor(1) as pool:
        print(*pool.submit(work).result())
    """)
    assert (ended.stdout, ended.stderr) == ("generator False generator\n", "")


@pytest.mark.parametrize("ended", ["dropped", "exhausted", "failed"])
def test_a_context_manager_that_outlives_its_generator_changes_nothing(
    ended, instrumented, tracer, caplog
):
    """One that was entered by hand and never left is detached by nobody, in any flow."""
    managers = []

    def careless():
        managers.append(tracer.start_as_current_span("generator"))
        managers[0].__enter__()
        yield
        if ended == "failed":
            raise ValueError

    generator = careless()
    next(generator)
    with contextlib.suppress(StopIteration, ValueError):
        if ended != "dropped":
            next(generator)
    del generator
    with tracer.start_as_current_span("consumer"):
        managers.clear()
        gc.collect()
        assert current_name() == "consumer"
    assert not get_current()
    assert not caplog.records
