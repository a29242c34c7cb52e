"""What is expected of ``multiprocessing.Pool``, under every start method, and of ``ThreadPool``.

What a worker sees comes back as the result of its task.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from multiprocessing import pool as pools

import pool_work
import pytest
from forms import WAIT
from item_forms import eventually
from opentelemetry import baggage, context, trace
from opentelemetry.context import attach, detach, get_current
from pool_work import NOTHING, look

from interpreters import weak_reference
from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._child_exit import flush
from otel_concurrency._primitives._multiprocessing import _pools

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PATIENCE = 60
"""Seconds after which a worker that has to start first will not answer any more."""

METHODS = ("fork", "forkserver", "spawn")
FORMS = {
    "apply": lambda pool, work: [pool.apply(work)],
    "apply_async": lambda pool, work: [pool.apply_async(work).get(PATIENCE)],
    "apply_async, args": lambda pool, work: [pool.apply_async(work, (1,)).get(PATIENCE)],
    "map": lambda pool, work: pool.map(work, range(3)),
    "map, chunks": lambda pool, work: pool.map(work, range(5), 2),
    "map_async": lambda pool, work: pool.map_async(work, iter(range(3))).get(PATIENCE),
    "starmap": lambda pool, work: pool.starmap(work, [(1,), (2,)]),
    "starmap_async": lambda pool, work: pool.starmap_async(work, [(1,), (2,)]).get(PATIENCE),
    "imap": lambda pool, work: list(pool.imap(work, range(3))),
    "imap, chunks": lambda pool, work: list(pool.imap(work, range(5), 2)),
    "imap_unordered": lambda pool, work: list(pool.imap_unordered(work, range(3))),
    "imap_unordered, chunks": lambda pool, work: list(pool.imap_unordered(work, range(5), 2)),
}


@contextlib.contextmanager
def opened(method, *args, **kwargs):
    """Open a pool, and see it closed in peace."""
    if method == "threads":
        pool = pools.ThreadPool(*args, **kwargs)
    else:
        pool = multiprocessing.get_context(method).Pool(*args, **kwargs)
    try:
        yield pool
        pool.close()
    except BaseException:
        pool.terminate()
        raise
    finally:
        pool.join()


@pytest.fixture(params=[*METHODS, "threads"])
def method(request):
    """Return a start method, or "threads"."""
    return request.param


@contextlib.contextmanager
def attached(new):
    """Attach a context for a while."""
    token = attach(new)
    try:
        yield
    finally:
        detach(token)


@contextlib.contextmanager
def origin(tracer, value="value"):
    """Be in a span with baggage; yield what is to be seen by work that is handed off here."""
    with (
        tracer.start_as_current_span("origin") as span,
        attached(baggage.set_baggage("key", value)),
    ):
        yield span.get_span_context().span_id, value, False


def seen_in(method, expected):
    """Return what is to be seen: within one process the span itself is current."""
    return (*expected[:2], method == "threads" and expected != NOTHING)


# Handing off


def test_a_task_runs_in_the_context_of_the_call(method, instrumented, tracer):
    """Each of its spans is a child of the span that called the pool, and has its baggage."""
    with opened(method, 1) as pool:
        for name, form in FORMS.items():
            for _ in range(2):
                with origin(tracer) as expected:
                    seen = form(pool, look)
                assert set(seen) == {seen_in(method, expected)}, name


@pytest.mark.parametrize("form", [FORMS[n] for n in FORMS if "chunks" not in n])
def test_a_task_leaves_nothing_for_the_next(form, instrumented, tracer):
    """Neither its context nor what it forgets to detach, whether it had a context or not.

    The items of one chunk are one task: the worker calls nothing of the library between them.
    """
    for method in ("fork", "threads"):
        with opened(method, 1) as pool:
            form(pool, pool_work.look_and_forget)
            with origin(tracer):
                form(pool, pool_work.look_and_forget)
            assert set(form(pool, pool_work.look_and_forget)) == {NOTHING}
            assert set(form(pool, look)) == {NOTHING}


def test_baggage_alone_crosses(method, instrumented):
    """A context without a span is one, and none is none."""
    with opened(method, 1) as pool:
        with attached(baggage.set_baggage("key", "alone")):
            assert pool.map(look, range(2)) == [(None, "alone", False)] * 2
        assert pool.map(look, range(2)) == [NOTHING] * 2


def test_a_pool_that_is_first_used_inside_a_span_belongs_to_nobody(method, instrumented, tracer):
    """Its initializer and its workers are clean, the recycled ones too."""
    with origin(tracer), opened(method, 1, pool_work.initialize) as pool:
        assert pool.apply(pool_work.initialized) == NOTHING
        with attached(context.Context()):
            assert pool.map(look, range(3), 1) == [NOTHING] * 3


@pytest.mark.parametrize("method", METHODS)
def test_recycled_workers_are_clean_and_take_part(method, instrumented, tracer):
    """With ``maxtasksperchild`` every worker's tasks are in their own contexts."""
    with origin(tracer) as first, opened(method, 1, maxtasksperchild=2) as pool:
        assert pool.map(look, range(3), 1) == [first] * 3
        with origin(tracer, "another") as second:
            assert pool.map(look, range(2), 1) == [second] * 2
        with attached(context.Context()):
            assert [pool.apply(look) for _ in range(3)] == [NOTHING] * 3
        assert len(set(pool.map(pool_work.pid, range(4), 1))) >= 2


def test_threads_of_a_pool_belong_to_nobody_beside_the_official_instrumentor(tracer, official):
    """It pins every thread to the span that started it; tasks do not run there."""
    instrumentor = ConcurrencyInstrumentor()
    official.instrument()
    instrumentor.instrument(threading="off")
    try:
        with origin(tracer), opened("threads", 1, pool_work.initialize) as pool:
            assert pool.apply(pool_work.initialized) == NOTHING
            with attached(context.Context()):
                assert pool.apply(look) == NOTHING
    finally:
        instrumentor.uninstrument()


def test_what_an_initializer_attaches_stays(method, instrumented, tracer):
    """It is the worker's own base: every task that has no context runs in it."""
    base = (None, "of the worker", False)
    with opened(method, 1, pool_work.initialize, ("of the worker",)) as pool:
        assert pool.apply(look) == base
        with origin(tracer) as expected:
            assert pool.apply(pool_work.look_and_forget) == seen_in(method, expected)
        assert pool.apply(pool_work.look_and_forget) == base
        assert pool.apply(look) == base


def test_what_a_task_adopts_ends_with_it(method, instrumented, tracer):
    """A task may be a consumer; its item is not handled any more when the next task runs."""
    with opened(method, 1) as pool:
        for _ in range(2):
            assert pool.apply(pool_work.adopt_an_item)[0] is not None
            assert pool.apply(look) == NOTHING
            with origin(tracer) as (span, value, _live):
                parent, seen, _live = pool.apply(pool_work.adopt_an_item)
                assert parent not in (None, span)
                assert seen == value
            assert pool.apply(look) == NOTHING


def test_threads_get_the_context_itself(instrumented, tracer):
    """In one process custom keys and the live span travel."""
    key = context.create_key("custom")
    with (
        opened("threads", 2) as pool,
        tracer.start_as_current_span("origin") as span,
        attached(context.set_value(key, span)),
    ):
        assert pool.map(lambda _: context.get_value(key), range(5), 1) == [span] * 5
        assert pool.apply(trace.get_current_span) is span


def test_what_is_iterated_over_is_computed_in_the_context_of_the_call(instrumented, tracer):
    """A generator that the pool's own thread consumes is the caller's work; the thread is clean."""
    threads = set()

    def items(number):
        for _ in range(number):
            threads.add(threading.current_thread())
            yield pool_work.look_and_forget()

    for method in ("fork", "threads"):
        with opened(method, 1) as pool:
            for chunks in (1, 2):
                with origin(tracer) as expected:
                    results = list(pool.imap(tuple, items(3), chunks))
                assert results[0] == (*expected[:2], True)
                assert list(pool.imap(tuple, items(1), chunks)) == [NOTHING]
    assert threading.current_thread() not in threads


def test_an_iterable_that_fails_fails_as_before(method, instrumented, tracer):
    """Its exception comes out of the iterator, after the results before it."""

    def items():
        yield 1
        raise ZeroDivisionError("of the iterable")

    with opened(method, 1) as pool, origin(tracer):
        results = pool.imap(pool_work.pid, items())
        assert next(results)
        with pytest.raises(ZeroDivisionError, match="of the iterable"):
            next(results)
        assert pool.apply(look)[1] == "value"


def test_excluded_functions_run_clean(method, tracer):
    """The setting is about the user's function, however it comes to the pool."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(excluded="pool_work.look")
    try:
        with opened(method, 1) as pool, origin(tracer) as expected:
            for form in FORMS.values():
                assert set(form(pool, look)) == {NOTHING}
            assert pool.apply(pool_work.look_and_forget) == seen_in(method, expected)
    finally:
        instrumentor.uninstrument()


# Callbacks


def test_callbacks_run_in_the_context_of_their_registration(method, instrumented, tracer):
    """Also where they are registered without one; the pool's thread is clean in between."""
    called = threading.Event()
    seen = []

    def callback(_result):
        seen.append(pool_work.look_and_forget())
        called.set()

    with opened(method, 1) as pool:
        calls = {
            "apply": functools.partial(pool.apply_async, look, callback=callback),
            "map": functools.partial(pool.map_async, look, range(3), 1, callback=callback),
            "error": functools.partial(
                pool.apply_async, pool_work.fail, error_callback=callback, callback=print
            ),
            "map, error": functools.partial(
                pool.starmap_async, pool_work.fail, [(1,)], error_callback=callback, callback=print
            ),
        }
        for call in calls.values():
            for in_context in (True, False, True):
                called.clear()
                with origin(tracer) if in_context else attached(context.Context()) as expected:
                    call()
                    assert called.wait(PATIENCE)
                    live = (*expected[:2], True) if in_context else NOTHING
                    assert seen.pop() == live


def test_nothing_that_is_over_keeps_a_context(method, instrumented):
    """Results that the user holds refer to no context, whichever callback they had, without gc."""

    class Value:
        pass

    def hand_off(pool, kept):
        value = Value()
        with attached(context.set_value("value", value)):
            for work in (pool_work.pid, pool_work.fail, lambda: None):
                kept.append(pool.apply_async(work, callback=id, error_callback=id))
                kept.append(pool.apply_async(work, error_callback=id))
                kept.append(pool.apply_async(work, callback=id))
            for work in (pool_work.pid, pool_work.fail):
                kept.append(pool.map_async(work, range(3), 1, callback=id, error_callback=id))
                kept.append(pool.map_async(work, [], callback=id, error_callback=id))
                kept.append(pool.imap(work, range(3)))
                kept.append(pool.imap(work, [], 2))
        return weak_reference(value)

    with opened(method, 1) as pool:
        pool.apply(pool_work.pid)
        gc.collect()
        gc.disable()
        try:
            kept = []
            held = hand_off(pool, kept)
            for result in kept:
                with contextlib.suppress(Exception):
                    result.get(PATIENCE) if hasattr(result, "get") else list(result)
            pool.apply(pool_work.pid)
            assert eventually(lambda: held() is None)
        finally:
            gc.enable()


def test_a_call_that_is_refused_keeps_no_context(instrumented):
    """The exception of a closed pool does not keep what was handed off alive."""

    class Value:
        pass

    def refuse(pool, method, *args, **kwargs):
        value = Value()
        with attached(context.set_value("value", value)):
            try:
                getattr(pool, method)(look, *args, callback=id, error_callback=id)
            except ValueError as error:
                return weak_reference(value), error
        raise AssertionError("the pool is closed")

    for method in ("fork", "threads"):
        with opened(method, 1) as pool:
            pool.close()
            for name, *args in (("apply_async",), ("map_async", [1]), ("starmap_async", [1])):
                held, error = refuse(pool, name, *args)
                assert str(error) == "Pool not running"
                value = held()
                frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
                ours = [f for f in frames if "otel_concurrency" in f.f_code.co_filename]
                assert ours
                for frame in ours:
                    for local in frame.f_locals.values():
                        assert getattr(local, "_context", None) is None
                del value


# Transparency


def outcome(call):
    """Return all that can be told of what a call raises."""
    try:
        call()
    except Exception as error:
        notes = getattr(error, "__notes__", None)
        return (
            type(error),
            str(error),
            notes,
            repr(error.__context__),
            repr(error.__suppress_context__),
        )
    raise AssertionError("it does not raise")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_exceptions_are_what_they_are_without_the_library(method, tracer):
    """Of the work, of its result, and of what cannot be pickled, down to the notes."""
    local = lambda: None  # noqa: E731
    broken = pool_work.Unpicklable()
    calls = [
        lambda pool: pool.apply(pool_work.fail, ("argument",)),
        lambda pool: pool.map(pool_work.fail, [1, 2]),
        lambda pool: list(pool.imap(pool_work.fail, [1, 2])),
        lambda pool: pool.apply(local),
        lambda pool: pool.apply(broken),
        lambda pool: pool.apply(pool_work.look, (local,)),
        lambda pool: pool.apply(pool_work.look, (), {"argument": broken}),
        lambda pool: pool.map(local, range(3)),
        lambda pool: pool.map(pool_work.look, [1, broken]),
        lambda pool: pool.starmap(broken, [(1,)]),
        lambda pool: list(pool.imap(local, range(3))),
        lambda pool: list(pool.imap(pool_work.look, [broken], 2)),
        lambda pool: pool.apply(5),
        lambda pool: pool.apply(None),
        lambda pool: pool.map(5, [1]),
        lambda pool: pool.map(look, None),
        lambda pool: pool.imap(look, [1], 0),
        lambda pool: pool.apply_async(),
        lambda pool: pool.apply_async(look, (), {}, None, None, None),
        lambda pool: pool.map_async(look),
        lambda pool: pool.apply(look, 5),
        lambda pool: pool.apply(functools.partial(pool_work.fail, "partial")),
    ]
    with opened(method, 1) as pool:
        plain = [outcome(functools.partial(call, pool)) for call in calls]
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument()
    try:
        with opened(method, 1) as pool, origin(tracer) as expected:
            for call, without in zip(calls, plain, strict=True):
                assert outcome(functools.partial(call, pool)) == without
            assert pool.apply(look) == expected
    finally:
        instrumentor.uninstrument()


@pytest.mark.parametrize("work", [pool_work.unpicklable, pool_work.fail_badly])
def test_a_result_that_cannot_be_pickled_fails_as_before(work, instrumented, tracer):
    """The worker says so, goes on, and is clean."""
    with opened("fork", 1) as pool:
        with origin(tracer), pytest.raises(pools.MaybeEncodingError):
            pool.apply(work)
        assert pool.apply(look) == NOTHING


def test_a_worker_that_is_not_instrumented_gets_plain_tasks(instrumented, tracer):
    """What is sent is the pickle of the plain task; what follows is nothing to ``pickle``."""
    with opened("fork", 1) as pool:
        pool.apply(look)
        inqueue = pool._inqueue
        sent = []

        class Pipe(type(inqueue._writer)):
            def send_bytes(self, buf, *args):
                sent.append(bytes(buf))
                return super().send_bytes(buf, *args)

        inqueue._writer.__class__ = Pipe
        with origin(tracer) as expected:
            assert pool.apply(look, (1,), {"keyword": 2}) == expected
            assert list(pool.imap(look, [3])) == [expected]
    applied, mapped = [pickle.loads(message) for message in sent]
    assert applied[1:] == (0, look, (1,), {"keyword": 2})
    assert mapped[1:] == (0, look, (3,), {})
    assert sent[0].startswith(bytes(multiprocessing.reduction.ForkingPickler.dumps(applied)))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_that_cannot_import_the_library_do_the_work(method, tmp_path, tracer):
    """The task is theirs as it is; only the context is lost."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['otel_concurrency'] = None\n", encoding="utf-8"
    )
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, os, sys
            sys.path.insert(0, {os.path.dirname(pool_work.__file__)!r})
            import pool_work

            if __name__ == "__main__":
                from otel_concurrency import ConcurrencyInstrumentor
                ConcurrencyInstrumentor().instrument()
                os.environ["PYTHONPATH"] = {str(tmp_path)!r}
                with multiprocessing.get_context({method!r}).Pool(1) as pool:
                    with pool_work.tracer.start_as_current_span("origin"):
                        assert pool.apply(pool_work.look) == pool_work.NOTHING
                        assert pool.map(pool_work.look, [1]) == [pool_work.NOTHING]
                        assert list(pool.imap(pool_work.look, [1])) == [pool_work.NOTHING]
                        print("done")
            """
        ),
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("done\n", "")


def test_pools_of_before_and_after(tracer):
    """A pool outlives being switched on and off, and is never in the way."""
    instrumentor = ConcurrencyInstrumentor()
    for method in ("fork", "threads"):
        with opened(method, 1) as old, origin(tracer) as expected:
            instrumentor.instrument()
            for form in FORMS.values():
                assert form(old, look)
            with pytest.raises(ValueError, match="invalid literal"):
                old.apply(int, ("five",))
            if method == "fork":
                with pytest.raises(TypeError):
                    old.apply(5)
            with opened(method, 1) as new:
                assert new.apply(look) == seen_in(method, expected)
                instrumentor.uninstrument()
                for form in FORMS.values():
                    assert set(form(new, look)) == {NOTHING}
            for form in FORMS.values():
                assert set(form(old, look)) == {NOTHING}


# The end


def lines(path):
    """Return the lines of a file, sorted; none if it is not there."""
    return sorted(path.read_text(encoding="utf-8").split("\n")[:-1]) if path.exists() else []


@pytest.mark.parametrize("method", METHODS)
def test_the_end_of_a_with_statement_loses_no_spans(method, instrumented, tmp_path):
    """Idle workers leave by themselves and export what they have, before the pool is terminated."""
    path = tmp_path / "spans"
    with multiprocessing.get_context(method).Pool(2, pool_work.export_to, (path,)) as pool:
        pool.map(pool_work.record, range(10), 1)
        workers = list(pool._pool)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert lines(path) == sorted(f"work {number}" for number in range(10))


def program_of(end):
    """Return a program that uses a pool and then does ``end``."""
    return textwrap.dedent(
        f"""
        import gc, multiprocessing, sys, threading
        sys.path.insert(0, {os.path.dirname(pool_work.__file__)!r})
        import pool_work
        from otel_concurrency import ConcurrencyInstrumentor

        ConcurrencyInstrumentor().instrument()
        pool = multiprocessing.get_context("fork").Pool(2, pool_work.export_to, (sys.argv[1],))
        pool.map(pool_work.record, range(4), 1)
        {end}
        """
    )


@pytest.mark.parametrize(
    "end",
    [
        "",
        "pool.terminate()",
        "pool.close(); pool.terminate()",
        "pool.close(); pool.join(); pool.terminate()",
        "pool.terminate(); pool.terminate(); pool.join()",
        "handlers = [pool._worker_handler]; del pool; gc.collect(); handlers[0].join()",
        "threading.Thread(target=pool.terminate).start()",
        "sys.exit(pool.terminate())",
    ],
)
def test_however_a_program_ends_its_pool_no_spans_are_lost(end, tmp_path):
    """At the interpreter's exit too, and where the pool is collected."""
    path = tmp_path / "spans"
    ended = subprocess.run(
        [sys.executable, "-Wignore", "-c", program_of(end), path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert lines(path) == [f"work {number}" for number in range(4)]


def test_outstanding_work_is_terminated_as_before(tmp_path):
    """A pool that has not done its work is not waited for, however long it might be."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(flush_timeout=600_000)
    try:
        started = tmp_path / "started"
        pool = multiprocessing.get_context("fork").Pool(1)
        pool.apply_async(pool_work.record_and_wait, (started, 1))
        assert eventually(started.exists)
        workers = list(pool._pool)
        terminating = threading.Thread(target=pool.terminate, daemon=True)
        terminating.start()
        terminating.join(PATIENCE)
        assert [worker.exitcode for worker in workers] == [-signal.SIGTERM]
    finally:
        instrumentor.uninstrument()


def test_an_exporter_that_hangs_holds_nobody_up_for_ever(tmp_path):
    """The setting bounds how long the pool is waited for; the workers are terminated then."""
    instrumentor = ConcurrencyInstrumentor()
    instrumentor.instrument(flush_timeout=200)
    try:
        path = tmp_path / "spans"
        pool = multiprocessing.get_context("fork").Pool(2, pool_work.export_to, (path, 600.0))
        pool.map(pool_work.record, range(4), 1)
        pool.terminate()
        pool.join()
        assert lines(path) == []
    finally:
        instrumentor.uninstrument()


def test_a_callback_may_terminate_its_pool(instrumented):
    """The pool's own threads do not wait for themselves."""
    terminated = threading.Event()

    def callback(_result):
        pool._state = pools.TERMINATE
        terminated.set()

    pool = multiprocessing.get_context("fork").Pool(1)
    pool.apply_async(pool_work.pid, callback=callback)
    assert terminated.wait(PATIENCE)
    pool.terminate()
    pool.join()


def test_a_pool_that_is_held_by_its_result_alone_ends(instrumented):
    """It is collected on the pool's own thread, which cannot wait for itself."""
    pool = multiprocessing.get_context("fork").Pool(1)
    handlers = [pool._worker_handler, pool._task_handler, pool._result_handler]
    result = pool.apply_async(pool_work.pid)
    pool._state = pools.CLOSE  # it is not to warn that it is collected unclosed
    del pool
    assert result.get(PATIENCE)
    del result
    for handler in handlers:
        handler.join(PATIENCE)
    assert [handler.is_alive() for handler in handlers] == [False] * 3


def test_a_worker_that_died_with_the_lock_makes_nothing_worse(instrumented):
    """A pool that nobody can send home is waited for no longer than the setting says.

    Terminating it hangs without the library, until the lock is released.
    """
    before, flush.timeout = flush.timeout, 200
    pool = multiprocessing.get_context("fork").Pool(2)
    try:
        pool.map(pool_work.pid, range(4), 1)
        with pool._outqueue._wlock:  # a worker holds it when its result is already here
            pass
        assert eventually(lambda: not pool._inqueue._rlock.acquire(False))
        for worker in list(pool._pool):
            os.kill(worker.pid, signal.SIGKILL)
        terminating = threading.Thread(target=pool.terminate, daemon=True)
        terminating.start()
        assert eventually(lambda: not pool._worker_handler.is_alive())
        pool._inqueue._rlock.release()
        terminating.join(WAIT)
        assert not terminating.is_alive()
    finally:
        flush.timeout = before


def test_nothing_is_left_in_the_calling_thread(method, instrumented, tracer):
    """The flow that hands off is where it was."""
    with opened(method, 1) as pool, origin(tracer):
        before = get_current()
        for form in FORMS.values():
            form(pool, look)
        assert get_current() is before


@pytest.mark.parametrize("wrap", [_pools._set_result, _pools._set_chunk])
def test_a_result_of_a_later_python_is_set(wrap):
    """Where results keep their callbacks by other names, nothing is released, nothing raised."""
    assert wrap(lambda *given: given)("a result", 0, None) == ("a result", 0, None)
