"""What holds for work that an ``InterpreterPoolExecutor`` runs in other interpreters: from 3.14 on.

The interpreters are real. What the work was run in is told by a span that it makes there.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.interpreter
import json
import re
import subprocess
import sys

import process_work
import pytest
from interpreter_forms import TIMEOUT, pool_of_one
from process_work import NOTHING, Sight
from test_processes import baggage_only, no_context, span_and_baggage

from otel_concurrency import ConcurrencyInstrumentor, _settings


@pytest.fixture
def pool():
    """Return a pool of one interpreter."""
    with pool_of_one() as opened:
        yield opened


def run(pool, work, *args):
    """Return the result of work in another interpreter."""
    return pool.submit(work, *args).result(TIMEOUT)


def seen_in(pool, work=process_work.look):
    """Return what work sees in another interpreter."""
    return Sight(*run(pool, work))


@pytest.mark.parametrize("first", [no_context, span_and_baggage, baggage_only])
def test_work_runs_in_the_context_that_it_was_submitted_in(pool, first, instrumented, tracer):
    """Whatever the first use was in, each work sees its own parent and baggage, or nothing."""
    for situation in (first, span_and_baggage, no_context, baggage_only, span_and_baggage):
        with situation(tracer) as expected:
            submitted = pool.submit(process_work.look)
            mapped = pool.map(process_work.look, range(2), timeout=TIMEOUT)

        assert Sight(*submitted.result(TIMEOUT)) == expected
        assert [Sight(*seen) for seen in mapped] == [expected] * 2


def test_work_leaves_nothing_behind(pool, instrumented, tracer):
    """What a work attaches and does not detach is not there for the next, not even for none."""
    with span_and_baggage(tracer) as expected:
        assert seen_in(pool, process_work.look_and_forget) == expected
        with pytest.raises(LookupError):
            run(pool, process_work.look_and_fail)
        with no_context(tracer):
            assert seen_in(pool, process_work.look_and_forget) == NOTHING
            assert seen_in(pool) == NOTHING
        assert seen_in(pool) == expected


def test_the_initializer_finds_the_settings_and_no_context(instrument, tracer):
    """An interpreter is instrumented like this one before its initializer is run, clean."""
    instrument(sched="off", link_after=1234, excluded="app.poller")
    keywords = _settings.in_force.as_keywords()

    with (
        span_and_baggage(tracer) as expected,
        pool_of_one("import process_work; process_work.find_out_and_look()") as pool,
    ):
        assert seen_in(pool) == expected
        instrumented, seen = run(pool, process_work.found_out)

    assert instrumented == (True, keywords)
    assert Sight(*seen) == NOTHING


def test_what_an_interpreter_says_of_itself_holds(pool, instrument, capfd):
    """Work that instruments its interpreter gets its own settings, without a warning."""
    instrument(sched="off")

    instrumented, keywords = run(pool, process_work.instrument_and_look, {"queue": "off"})

    assert instrumented
    assert (keywords["queue"], keywords["sched"]) == ("off", "parent")
    assert "nstrument" not in capfd.readouterr().err


def test_interpreters_hand_off_in_turn(pool, instrumented, tracer):
    """What the work hands to a thread of its interpreter arrives in its context."""
    with span_and_baggage(tracer) as expected:
        assert seen_in(pool, process_work.look_from_a_thread) == expected


def failures(pool):
    """Return how work fails that cannot cross, before the call and after it."""
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
    ):
        error = pool.submit(work, *args).exception(TIMEOUT)
        found.append((type(error), str(error)))
    return found


def test_what_cannot_cross_fails_as_without_us(tracer):
    """Work, arguments and results that cannot cross raise what they would, and the pool goes on."""
    with pool_of_one() as pool:
        plain = failures(pool)
        ConcurrencyInstrumentor().instrument()
        try:
            with span_and_baggage(tracer) as expected:
                ours = failures(pool)
                assert seen_in(pool) == expected
            with no_context(tracer):
                assert seen_in(pool) == NOTHING
        finally:
            ConcurrencyInstrumentor().uninstrument()

    addresses = r"0x[0-9a-f]+"
    assert [without(addresses, text) for _, text in ours] == [
        without(addresses, text) for _, text in plain
    ]
    assert [kind for kind, _ in ours] == [kind for kind, _ in plain]


def without(pattern, text):
    """Return ``text`` with what differs from run to run taken out."""
    return re.sub(pattern, "", text)


def test_pools_outlive_the_switch(pool, tracer):
    """A pool works before, while, between and after the library is on."""
    instrumentor = ConcurrencyInstrumentor()
    with span_and_baggage(tracer) as expected:
        assert seen_in(pool) == NOTHING
        instrumentor.instrument()
        assert seen_in(pool) == expected
        instrumentor.uninstrument()
        assert seen_in(pool) == NOTHING


def test_undo_is_exact():
    """After uninstrument() everything is what it was, by identity."""
    module = concurrent.futures.interpreter
    owners = (module, module.WorkerContext, module.InterpreterPoolExecutor)
    before = [dict(vars(owner)) for owner in owners]
    ConcurrencyInstrumentor().instrument()
    changed = [dict(vars(owner)) != was for owner, was in zip(owners, before, strict=True)]
    ConcurrencyInstrumentor().uninstrument()

    assert changed == [True, True, False]
    for owner, was in zip(owners, before, strict=True):
        assert vars(owner).keys() == was.keys()
        assert all(vars(owner)[name] is was[name] for name in was)


ALONE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import concurrent.futures
from opentelemetry import baggage, context
from otel_concurrency import ConcurrencyInstrumentor

def initialize(path):
    import sys
    sys.path[:] = path

def look():
    try:
        from opentelemetry import baggage
    except ImportError:
        return 42
    return baggage.get_baggage("order")

ConcurrencyInstrumentor().instrument()
context.attach(baggage.set_baggage("order", "43"))
initializer = initialize if sys.argv[2:] else None
with concurrent.futures.InterpreterPoolExecutor(1, "", initializer, (sys.path,)) as pool:
    print([pool.submit(look).result(60) for _ in range(2)])
"""


def in_new_interpreters_alone(*args):
    """Run work in interpreters that by themselves import from the standard library alone."""
    command = [sys.executable, "-I", "-S", "-c", ALONE, json.dumps(sys.path), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)


def test_interpreters_without_the_library_do_the_work():
    """Where the library cannot be imported the work runs all the same, and one line says so."""
    ran = in_new_interpreters_alone()

    assert ran.stdout == "[42, 42]\n"
    assert ran.stderr.count("OpenTelemetry context was not propagated") == 1
    assert "No module named 'otel_concurrency'" in ran.stderr


def test_an_initializer_may_make_the_library_importable():
    """Where it is the initializer that lets the interpreter import the library, that is enough."""
    ran = in_new_interpreters_alone("initialize")

    assert ran.stdout == "['43', '43']\n"
    assert ran.stderr == ""
