"""Generators that hold a context over a ``yield``, and everything that can happen to one.

A :class:`Program` is one generator, sync or async, and a consumer that resumes it step by step, in
a flow and a context of its own at each step. Both write down what is current for them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from forms import WAIT
from item_forms import drive
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.sdk.trace import TracerProvider

setting = "generators"

TRACER = TracerProvider().get_tracer("tests")


class Boom(Exception):
    """What a generator or its consumer raises."""


# --- how a generator comes to hold a context ---


@contextlib.contextmanager
def a_span():
    """Hold a span, as nearly everybody does."""
    with TRACER.start_as_current_span("generator"):
        yield


@contextlib.contextmanager
def baggage_by_hand():
    """Hold baggage and no span."""
    token = attach(baggage.set_baggage("whose", "generator"))
    try:
        yield
    finally:
        detach(token)


class VendorsSpan:
    """A class of a vendor's that attaches when it is entered, through helpers of its own."""

    def __enter__(self):
        self.begin()
        return self

    def begin(self):
        self.token = attach(trace.set_span_in_context(TRACER.start_span("generator")))

    def __exit__(self, *error):
        detach(self.token)

    async def __aenter__(self):
        await asyncio.sleep(0)
        self.begin()

    async def __aexit__(self, *error):
        await asyncio.sleep(0)
        detach(self.token)


@contextlib.asynccontextmanager
async def awaited_span():
    """Hold a span through an asynchronous context manager, which waits."""
    await asyncio.sleep(0)
    with TRACER.start_as_current_span("generator"):
        await asyncio.sleep(0)
        yield
    await asyncio.sleep(0)


@contextlib.contextmanager
def on_an_exit_stack():
    """Hold a span that is entered by an exit stack."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(TRACER.start_as_current_span("outer"))
        stack.enter_context(trace.use_span(TRACER.start_span("generator"), end_on_exit=True))
        yield


@contextlib.contextmanager
def nested():
    """Hold two spans, one in the other."""
    with TRACER.start_as_current_span("outer"), TRACER.start_as_current_span("generator"):
        yield


# --- the generators ---


def plainly(log: Log, *, fails: bool):
    """Hold a span by the tracer's own context manager, in the generator's own frame."""
    log.before()
    with TRACER.start_as_current_span("generator"):
        for number in range(3):
            log.inside()
            log.sent.append((yield number))
        if fails:
            raise Boom
    log.after()
    yield "after"


async def plainly_async(log: Log, *, fails: bool):
    """Do the same, and wait in between."""
    log.before()
    with TRACER.start_as_current_span("generator"):
        for number in range(3):
            log.inside()
            await asyncio.sleep(0)
            log.inside()
            log.sent.append((yield number))
        if fails:
            raise Boom
    log.after()
    yield "after"


def by_hand(log: Log, *, fails: bool):
    """Attach and detach by hand."""
    log.before()
    token = attach(trace.set_span_in_context(TRACER.start_span("generator")))
    try:
        for number in range(3):
            log.inside()
            log.sent.append((yield number))
        if fails:
            raise Boom
    finally:
        detach(token)
    log.after()
    yield "after"


async def by_hand_async(log: Log, *, fails: bool):
    """Do the same, and wait in between."""
    log.before()
    token = attach(trace.set_span_in_context(TRACER.start_span("generator")))
    try:
        for number in range(3):
            log.inside()
            await asyncio.sleep(0)
            log.sent.append((yield number))
        if fails:
            raise Boom
    finally:
        await asyncio.sleep(0)
        detach(token)
    log.after()
    yield "after"


def never_detached(log: Log, *, fails: bool):
    """Attach, and forget about it."""
    log.before()
    attach(trace.set_span_in_context(TRACER.start_span("generator")))
    for number in range(3):
        log.inside()
        log.sent.append((yield number))
    if fails:
        raise Boom
    yield "after"


async def never_detached_async(log: Log, *, fails: bool):
    """Do the same, and wait in between."""
    log.before()
    attach(trace.set_span_in_context(TRACER.start_span("generator")))
    for number in range(3):
        log.inside()
        await asyncio.sleep(0)
        log.sent.append((yield number))
    if fails:
        raise Boom
    yield "after"


def through(manager: Callable[[], Any]):
    """Return a generator function that holds what ``manager`` attaches."""

    def generator(log: Log, *, fails: bool):
        log.before()
        with manager():
            for number in range(3):
                log.inside()
                log.sent.append((yield number))
            if fails:
                raise Boom
        log.after()
        yield "after"

    return generator


def through_async(manager: Callable[[], Any]):
    """Return an asynchronous generator function that holds what ``manager`` attaches."""

    async def generator(log: Log, *, fails: bool):
        log.before()
        async with manager():
            for number in range(3):
                log.inside()
                await asyncio.sleep(0)
                log.sent.append((yield number))
            if fails:
                raise Boom
        log.after()
        yield "after"

    return generator


def through_sync(manager: Callable[[], Any]):
    """Return an asynchronous generator function that holds what a plain ``manager`` attaches."""

    async def generator(log: Log, *, fails: bool):
        log.before()
        with manager():
            for number in range(3):
                log.inside()
                await asyncio.sleep(0)
                log.sent.append((yield number))
            if fails:
                raise Boom
        log.after()
        yield "after"

    return generator


def delegated(log: Log, *, fails: bool):
    """Hold a span around another generator, which holds one as well."""

    def delegate():
        with TRACER.start_as_current_span("generator"):
            for number in range(3):
                log.inside()
                log.sent.append((yield number))
            if fails:
                raise Boom

    log.before()
    with TRACER.start_as_current_span("around"):
        yield from delegate()
    log.after()
    yield "after"


GENERATORS = {
    "span": plainly,
    "by hand": by_hand,
    "never detached": never_detached,
    "baggage": through(baggage_by_hand),
    "context manager": through(a_span),
    "vendor": through(VendorsSpan),
    "exit stack": through(on_an_exit_stack),
    "nested": through(nested),
    "delegated": delegated,
    "async span": plainly_async,
    "async by hand": by_hand_async,
    "async never detached": never_detached_async,
    "async baggage": through_sync(baggage_by_hand),
    "async context manager": through_sync(a_span),
    "async awaited": through_async(awaited_span),
    "async vendor": through_async(VendorsSpan),
    "async nested": through_sync(nested),
}


@dataclass
class Log:
    """What was current, for the generator and for its consumer."""

    contexts: list[Any] = field(default_factory=list)
    """Inside the generator, wherever it looked."""
    parents: list[Any] = field(default_factory=list)
    """Of the spans that the generator has made, as the name of a parent."""
    sent: list[Any] = field(default_factory=list)
    expected: Any = None
    """What is current for whoever resumes the generator at present."""
    wrong: list[str] = field(default_factory=list)

    def before(self):
        """Note that the generator holds nothing yet: it is in its consumer's context."""
        self._check("before it attaches")

    def after(self):
        """Note that the generator holds nothing any more: it is in its consumer's context."""
        self._check("after it has detached")

    def _check(self, when: str):
        if get_current() is not self.expected:
            self.wrong.append(f"{when} the generator is in {get_current()}")

    def inside(self):
        """Note what is current where the generator holds something, and who a span's parent is."""
        current: Any = trace.get_current_span()
        self.contexts.append(get_current())
        self.parents.append(getattr(current, "name", None))

    def consumer(self, when: str):
        """Note that the consumer looks at what is current."""
        if get_current() is not self.expected:
            self.wrong.append(f"{when} the consumer is in {get_current()}")


class Program:
    """One generator, and what is done with it."""

    def __init__(self, name: str, flow: str, *, fails: bool = False):
        self.is_async = name.startswith("async")
        self.log = Log()
        self._flow = flow
        self._steps = 0
        self._loop: Any = None
        self.generator: Any = GENERATORS[name](self.log, fails=fails)

    async def step(self, operate: Callable[[Any], Any], raises: type | None = None) -> Any:
        """Resume the generator, in a flow and a span as the program has them."""
        return await FLOWS[self._flow](self, operate, raises)

    def in_turn(self) -> bool:
        """Whether it is the turn of the program's own event loop."""
        return self._steps % 2 == 1

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return an event loop that runs in another thread, until :meth:`end`."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever)
            self._thread.start()
        return self._loop

    def end(self) -> None:
        """End what runs in other threads."""
        if self._loop is not None:
            shutdown = self._loop.shutdown_asyncgens()
            asyncio.run_coroutine_threadsafe(shutdown, self._loop).result(WAIT)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(WAIT)
            self._loop.close()
            self._loop = None

    async def operate(self, operate: Callable[[Any], Any], raises: type | None) -> Any:
        """Resume it here, and have a look before and after."""
        log, log.expected = self.log, get_current()
        log.consumer("before a resumption")
        result = raised = None
        try:
            result = operate(self.generator)
            if self.is_async:
                result = await result
        except (Boom, StopIteration, StopAsyncIteration) as error:
            raised = type(error)
        log.consumer("after a resumption")
        assert raised is raises
        return result

    async def in_a_span(self, operate: Callable[[Any], Any], raises: type | None) -> Any:
        """Resume it in a root span of the step's own."""
        self._steps += 1
        with TRACER.start_as_current_span(
            f"consumer {self._steps}", context=trace.set_span_in_context(trace.INVALID_SPAN)
        ):
            return await self.operate(operate, raises)


async def in_the_same_flow(program, operate, raises):
    """Resume where everything else is."""
    return await program.operate(operate, raises)


async def in_another_span(program, operate, raises):
    """Resume in another span each time."""
    return await program.in_a_span(operate, raises)


async def in_another_task(program, operate, raises):
    """Resume in a task, in a span of its own."""
    return await asyncio.create_task(program.in_a_span(operate, raises))


async def in_another_thread(program, operate, raises):
    """Resume in a thread each time; an asynchronous one in turn here and in another event loop."""
    if program.is_async:
        step = program.in_a_span(operate, raises)
        if program.in_turn():
            return await step
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step, program.loop()))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        step = program.in_a_span(operate, raises)
        return await asyncio.wrap_future(pool.submit(drive, step))


FLOWS = {
    "same flow": in_the_same_flow,
    "another span": in_another_span,
    "another thread": in_another_thread,
    "another task": in_another_task,
}


# --- what happens to it ---


def resume(generator):
    """Ask for the next value."""
    return generator.__anext__() if hasattr(generator, "__anext__") else next(generator)


def send(generator):
    """Send a value, and get the next one."""
    return generator.asend("sent") if hasattr(generator, "asend") else generator.send("sent")


def throw(generator):
    """Throw an exception in."""
    return generator.athrow(Boom()) if hasattr(generator, "athrow") else generator.throw(Boom())


def close(generator):
    """Close it."""
    return generator.aclose() if hasattr(generator, "aclose") else generator.close()


def end_of(generator):
    """Return what an exhausted generator raises."""
    return StopAsyncIteration if hasattr(generator, "__anext__") else StopIteration


async def exhausted(program):
    """Take everything there is."""
    for expected in (0, 1, 2, "after"):
        assert await program.step(resume) == expected
    await program.step(resume, end_of(program.generator))


async def broken_off(program):
    """Leave after two values, and drop the generator."""
    for expected in (0, 1):
        assert await program.step(resume) == expected
    program.log.expected = get_current()
    program.generator = None
    for _ in range(5):  # an asynchronous one is closed by a task of the loop's
        await asyncio.sleep(0)
    program.log.consumer("after the generator was dropped")


async def closed_elsewhere(program):
    """Leave after two values, and have the generator closed in another flow."""
    for expected in (0, 1):
        assert await program.step(resume) == expected
    await in_another_task(program, close, None)


async def thrown_into(program):
    """Throw an exception in, which it does not handle."""
    assert await program.step(resume) == 0
    await program.step(throw, Boom)


async def failing(program):
    """Have it raise an exception of its own."""
    for expected in (0, 1, 2):
        assert await program.step(resume) == expected
    await program.step(resume, Boom)


async def abandoned(program):
    """Leave it in a cycle of references, for the garbage collector."""
    for expected in (0, 1):
        assert await program.step(resume) == expected
    cycle: list[Any] = [program.generator]
    cycle.append(cycle)
    program.log.expected = get_current()
    program.generator = cycle = None
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    program.log.consumer("after a collection")


async def sent_to(program):
    """Send it values."""
    assert await program.step(resume) == 0
    for expected in (1, 2, "after"):
        assert await program.step(send) == expected
    assert program.log.sent == ["sent"] * 3
    await program.step(resume, end_of(program.generator))


ENDINGS = {
    "exhausted": exhausted,
    "broken off": broken_off,
    "closed elsewhere": closed_elsewhere,
    "thrown into": thrown_into,
    "fails": failing,
    "abandoned": abandoned,
    "sent to": sent_to,
}
