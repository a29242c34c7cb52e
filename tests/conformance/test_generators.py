"""What holds for every generator that holds a context over a ``yield``, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref

import pytest
from generator_forms import ENDINGS, FLOWS, GENERATORS, Program
from opentelemetry import trace
from opentelemetry.context import get_current

from otel_concurrency import _instrumentor
from otel_concurrency._generators import monitoring
from otel_concurrency._primitives import _generators

pytestmark = pytest.mark.skipif(
    not monitoring.IS_THERE, reason="before CPython 3.12 a suspension is not heard of"
)


def found():
    """Return what the library knows of generators."""
    layers = _instrumentor.primitives_in_use["generators"].layers
    (patch,) = layers["opentelemetry.context.contextvars_context"]
    return patch


@contextlib.contextmanager
def collected_once():
    """Let the collector run only where a program asks for it.

    Otherwise it may find an abandoned asynchronous generator after the context manager that this
    one is in. CPython closes both in the order in which they are found, and contextlib raises
    RuntimeError if its generator is closed first, without this library, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", GENERATORS)
def test_generator_and_consumer_each_keep_their_own(name, ending, flow, instrumented, caplog):
    """Every stretch of the generator is in its context, all of its consumers' in theirs."""
    program = Program(name, flow, fails=ending == "fails")
    log = program.log
    with caplog.at_level(logging.WARNING), collected_once():
        asyncio.run(ENDINGS[ending](program))
        program.end()
    assert not log.wrong
    assert log.contexts
    assert all(context is log.contexts[0] for context in log.contexts)
    if "baggage" in name:
        assert log.contexts[0] not in (None, {})
    else:
        assert set(log.parents) == {"generator"}
    logged = [record.getMessage() for record in caplog.records]
    # A task that an earlier test has left may be found by the collector meanwhile.
    assert not [line for line in logged if not line.startswith("Task was destroyed")]
    program.generator = None
    gc.collect()
    assert not found().suspensions.by_token
    assert not found().suspensions.by_frame
    assert not found().suspensions.without_frame
    assert not get_current()


class Opened:
    """A block that reads the first value of a generator when it is entered."""

    def __init__(self, values):
        self._values = values

    def __enter__(self):
        return next(self._values)

    def __exit__(self, *error):
        self._values.close()


def start(tracer):
    """Start a span as the current one."""
    return tracer.start_as_current_span("generator")


def use(tracer):
    """Make a span that was started before the current one."""
    return trace.use_span(tracer.start_span("generator"), end_on_exit=True)


@pytest.mark.parametrize("hold", [start, use])
def test_a_block_that_reads_a_generator_keeps_its_own(hold, tracer, instrumented):
    """The block is the consumer: it is not in the generator's span, however that was attached."""

    def values():
        with hold(tracer):
            yield trace.get_current_span()
            yield

    for _ in range(2):  # the first one is where the library learns who has attached
        with tracer.start_as_current_span("consumer") as consumer, Opened(values()) as held:
            assert held is not consumer
            assert trace.get_current_span() is consumer


def test_a_function_that_is_passed_a_block_does_not_take_it_for_the_last_one(tracer, instrumented):
    """It was passed a tracer's block before, and then one that reads a generator."""

    def current_in(block):
        with block:
            return trace.get_current_span()

    def values():
        with use(tracer):
            yield
            yield

    assert current_in(start(tracer)).name == "generator"
    consumer = tracer.start_span("consumer")
    with trace.use_span(consumer):
        assert current_in(Opened(values())) is consumer


def test_blocks_of_a_code_are_forgotten_before_another_gets_its_identity():
    """Also where another thread notes a block while all others are forgotten."""

    def code():
        def starts(tracer):
            with tracer.start_as_current_span(str(tracer)):
                pass

        return starts.__code__.replace()

    class Blocks(_generators._Blocks):
        def clear(self):
            super().clear()
            meanwhile = code()
            noted.append(weakref.ref(meanwhile))
            self.add(meanwhile, 0)

    noted = []
    blocks = Blocks()
    codes = [code() for _ in range(_generators._MOST_CODES + 1)]
    for one in codes:
        blocks.add(one, 0)
    gc.collect()
    assert [one() is not None for one in noted] == [True]
    assert len(blocks) == 2
