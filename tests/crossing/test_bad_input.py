"""Whatever comes in from outside, the program's results are what they are without the library.

That is headers in the environment that this process was started with, and what another process has
put behind or beside the work that it sends. Where it makes no sense there is one warning, and the
work runs in no context. What is wrong with settings is in ``test_settings``.
"""

from __future__ import annotations

import concurrent.futures.process
import logging
import marshal
import multiprocessing.pool
import os
import pickle
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from otel_concurrency import ConcurrencyInstrumentor
from otel_concurrency._core import faults
from otel_concurrency._crossing import carrier, wire_format

WAIT = 20
FORK = multiprocessing.get_context("fork")
TRACER = TracerProvider(ALWAYS_ON, shutdown_on_exit=False).get_tracer("bad input")

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
VARIABLES = ("TRACEPARENT", "TRACESTATE", "BAGGAGE", "OTEL_CONCURRENCY_LINK")
CARRIED = (
    "traceparent",
    "tracestate",
    "baggage",
    "otel-concurrency-ended",
    "otel-concurrency-link",
)


@st.composite
def _mutated(draw, valid):
    """Return ``valid`` with a part of it replaced by something else, or by nothing."""
    start = draw(st.integers(0, len(valid)))
    end = draw(st.integers(start, len(valid)))
    return valid[:start] + draw(anything) + valid[end:]


anything = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary().map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
    st.text("0123456789abcdef-=,;% \t", max_size=80),
)
texts = st.one_of(
    anything,
    st.sampled_from(
        [VALID, VALID + " policy futures", "a=1,b=2;c", "%", "=,;", "k=" + "v" * 9000, "0" * 55]
    ),
    _mutated(VALID),
    _mutated("key=value,other=%20value;property"),
    _mutated("vendor=state,t1@v2=s"),
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary()),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=5,
)
headers = st.dictionaries(st.sampled_from(CARRIED) | texts, texts | plain)


@st.composite
def _cut(draw):
    """Return what could have followed a pickle, damaged on its way."""
    whole = marshal.dumps(draw(headers), 2)
    length = draw(st.just(len(whole)) | st.integers(0, 2**32 - 1))
    body = whole[draw(st.integers(0, len(whole))) :] if draw(st.booleans()) else whole
    return b"".join((body, length.to_bytes(4, "big"), b"\0otel-concurrency\0"))


def _fits(value):
    """Whether a pipe holds several of these: here nobody reads before all are sent."""
    return len(pickle.dumps(value)) < 10_000


encoded = st.one_of(
    st.dictionaries(texts, texts).map(wire_format.encode),
    st.binary().map(b"\1".__add__),
    headers.map(lambda value: marshal.dumps(value, 2)),
    plain.map(lambda value: marshal.dumps(value, 2)),
    st.binary(),
)
trailers = st.one_of(_cut(), encoded.map(wire_format.trailer), st.binary()).filter(_fits)
packed = st.one_of(plain, encoded, _cut()).filter(_fits)

fuzzed = settings(deadline=None)


class Logged(logging.Handler):
    """Keeps what the library says."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.words = []

    def emit(self, record):
        self.words.append(record.getMessage())


@contextmanager
def switched_on(**keywords):
    """Switch the library on; yield what it says of bad input."""
    logged = Logged()
    logger = logging.getLogger("otel_concurrency")
    logger.addHandler(logged)
    faults._reported.clear()
    try:
        ConcurrencyInstrumentor().instrument(**keywords)
        yield logged.words
    finally:
        ConcurrencyInstrumentor().uninstrument()
        logger.removeHandler(logged)


def parent_of_a_span():
    """Return the id of the span that one which is started now has for its parent, or None."""
    with TRACER.start_as_current_span("work") as span:
        return span.parent and span.parent.span_id


def in_thread(function, *args):
    """Return what ``function`` returns on a thread of its own, where there is no context."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    thread.join(WAIT)
    (result,) = results
    return result


def is_parent(value):
    """Whether ``value`` is a parent that the specification of W3C trace context knows."""
    found = re.fullmatch(r"\s*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\s*", value)
    return bool(found) and found[1] != "ff" and int(found[2], 16) and int(found[3], 16)


def is_reported_once(said):
    """Whether an unknown version was reported at most once, and damaged headers at most once."""
    damaged = [message for message in said if "wire format version" not in message]
    return len(damaged) <= 1 and len(said) - len(damaged) <= 1


# The environment


@fuzzed
@given(
    variables=st.dictionaries(st.sampled_from(VARIABLES), texts),
    policy=st.sampled_from(["parent", "link"]),
)
@example({"TRACEPARENT": VALID, "BAGGAGE": "\udc80"}, "parent")
def test_no_variable_keeps_a_process_from_its_work(variables, policy):
    """It joins the trace that is there, or none; commands are started as ever."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        before = dict(os.environb)
        with switched_on(subprocess=policy) as said:
            parent = parent_of_a_span()
            run = subprocess.run(
                [shutil.which("env"), "-0"], capture_output=True, timeout=WAIT, check=True
            )
        after = dict(os.environb)

    if policy == "parent" and is_parent(variables.get("TRACEPARENT", "")):
        assert parent == int("".join(variables["TRACEPARENT"].split()).split("-")[2], 16)
    elif parent is not None:
        assert policy == "parent"
        assert f"{parent:016x}" in variables["TRACEPARENT"]
    assert len(said) <= 1
    assert after == before
    kept = {name: value for name, value in before.items() if name.decode() not in VARIABLES}
    given_on = dict(pair.split(b"=", 1) for pair in run.stdout.split(b"\0") if pair)
    assert kept.items() <= given_on.items()


@fuzzed
@given(environment=st.dictionaries(st.sampled_from([*VARIABLES, "MINE"]), texts))
def test_no_variable_of_a_command_keeps_it_from_being_started(environment):
    """What the program gives to a command arrives there."""
    with switched_on(subprocess="parent") as said, TRACER.start_as_current_span("parent"):
        run = subprocess.run(
            [shutil.which("env"), "-0"],
            env=environment,
            capture_output=True,
            timeout=WAIT,
            check=True,
        )
    arrived = dict(pair.split(b"=", 1) for pair in run.stdout.split(b"\0") if pair)
    for name, value in environment.items():
        assert arrived[name.encode()] == os.fsencode(value)
    assert said == []


# What another process has sent


@fuzzed
@given(anything=headers | plain)
def test_no_headers_can_make_the_carrier_raise(anything):
    """They are a context, or none; a span can be started in it."""
    with switched_on() as said:
        context = carrier.unpack_safely(anything)
        if context is not None:
            span = TRACER.start_span("work", context)
            assert span.is_recording()
            span.end()
    assert len(said) <= 1


@fuzzed
@given(behind=trailers)
@example(b"\0\0\0\2\0otel-concurrency\0")
def test_nothing_behind_an_item_keeps_it_from_being_got(behind):
    """The items of a process's queue are got in their order, and the work on them is done.

    A wrong length can make the headers begin in the pickle, differently for each item.
    """
    items = FORK.SimpleQueue()
    for number in range(3):
        items._writer.send_bytes(pickle.dumps(number) + behind)

    def consume():
        got = []
        for _ in range(3):
            got.append(items.get())
            parent_of_a_span()
        return got

    with switched_on() as said:
        assert in_thread(consume) == [0, 1, 2]
    items.close()
    assert is_reported_once(said)


class Worker:
    """The two ends that a pool's worker has: what is sent to it by a pipe, and what it answers."""

    def __init__(self, *messages):
        self._plain = FORK.SimpleQueue()
        self.answers = []
        for message in messages:
            self._plain._writer.send_bytes(message)

    def get(self, block=True, timeout=None):
        return self._plain.get()

    def put(self, answer):
        self.answers.append(answer)

    def run(self, function, *args):
        """Have ``function`` be the worker."""
        in_thread(function, self, self, *args)
        self._plain.close()


@fuzzed
@given(behind=trailers)
@example(b"\0\0\0\2\0otel-concurrency\0")
def test_nothing_behind_a_task_keeps_a_worker_from_its_work(behind):
    """A pool's worker does one task after the other, and leaves when it is told."""
    tasks = [(number, None, divmod, (number, 2), {}) for number in range(3)]
    worker = Worker(*(pickle.dumps(task) + behind for task in tasks), pickle.dumps(None))
    with switched_on() as said:
        worker.run(multiprocessing.pool.worker)
    assert worker.answers == [(n, None, (True, divmod(n, 2))) for n in range(3)]
    assert is_reported_once(said)


@fuzzed
@given(beside=packed)
def test_nothing_beside_a_call_keeps_a_worker_from_its_work(beside):
    """An executor's worker does one call after the other, and leaves when it is told."""
    process = concurrent.futures.process
    calls = [process._CallItem(number, divmod, (number, 2), {}) for number in range(3)]
    for call in calls:
        call._otel_concurrency_headers = beside
    worker = Worker(*map(pickle.dumps, [*calls, None]))
    with switched_on() as said:
        worker.run(process._process_worker, None, ())
    *results, last = worker.answers
    assert [result.result for result in results] == [divmod(n, 2) for n in range(3)]
    assert last == os.getpid()
    assert len(said) <= 1


@settings(deadline=None, max_examples=min(40, settings().max_examples))
@given(beside=headers | plain)
def test_no_headers_keep_a_process_from_its_work(beside):
    """A child whose process object has something else in the place of headers does its work."""
    result = FORK.SimpleQueue()
    process = FORK.Process(target=result.put, args=("done",))
    process._otel_concurrency_headers = beside
    with switched_on() as said:
        process.start()
        assert result.get() == "done"
        process.join(WAIT)
    result.close()
    assert process.exitcode == 0
    assert said == []
