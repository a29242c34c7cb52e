"""What is wrapped stays what it is: functions, coroutine functions, generator functions."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import threading
import types
import warnings

import pytest
from opentelemetry.context import attach, detach, set_value
from seen import NOTHING, WAIT, current, id_of, in_context, without_context

from interpreters import weak_reference
from otel_concurrency import capture, wrap

pytestmark = pytest.mark.usefixtures("library")


# --- functions ---


def test_a_wrapped_function_looks_as_it_did():
    """Name, documentation, signature, annotations and attributes are those of the function."""

    def work(left: int, *, right: int = 2) -> int:
        """Add."""
        return left + right

    work.attribute = "own"
    wrapped = wrap(work)
    assert wrapped.__name__ == "work"
    assert wrapped.__qualname__ == work.__qualname__
    assert wrapped.__doc__ == "Add."
    assert wrapped.__wrapped__ is work
    assert wrapped.attribute == "own"
    assert inspect.signature(wrapped) == inspect.signature(work)
    assert isinstance(wrapped, types.FunctionType)
    assert wrapped(1, right=3) == 4
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        wrapped(1, wrong=3)


class Service:
    """Has methods of every kind."""

    def method(self):
        return self, current()

    @classmethod
    def of_class(cls):
        return cls, current()

    @staticmethod
    def static():
        return None, current()

    def __call__(self):
        return self, current()


@pytest.mark.parametrize("name", ["method", "of_class", "static", "__call__"])
def test_methods_and_callable_objects_are_wrapped(name, request_span):
    """A bound method, one of a class, a static one, and an object that can be called."""
    service = Service()
    f = service if name == "__call__" else getattr(service, name)
    owner, seen = without_context(wrap(f))
    assert owner is {"of_class": Service, "static": None}.get(name, service)
    assert seen == (id_of(request_span), "acme")
    assert inspect.signature(wrap(f)) == inspect.signature(f)


def test_a_wrapped_function_binds_in_a_class(request_span):
    """As a method it gets its object."""

    class Own:
        work = wrap(lambda self: (self, current()))

    own = Own()
    assert without_context(own.work) == (own, (id_of(request_span), "acme"))


def test_builtins_classes_and_partials_are_wrapped(request_span):
    """Whatever can be called can be wrapped."""
    assert wrap(len)([1]) == 1
    assert wrap(dict)(a=1) == {"a": 1}
    assert without_context(wrap(functools.partial(lambda *args: (args, current()), 1)), 2) == (
        (1, 2),
        (id_of(request_span), "acme"),
    )


def test_it_is_called_any_number_of_times_by_any_thread(request_span):
    """Also by itself: each call is in the context, and leaves nothing."""
    seen = []

    def work(depth):
        seen.append(current())
        if depth:
            wrapped(depth - 1)

    wrapped = wrap(work)
    threads = [threading.Thread(target=without_context, args=(wrapped, 2)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert seen == [(id_of(request_span), "acme")] * 9
    assert without_context(lambda: (wrapped(0), current())[1]) == NOTHING


# --- coroutine functions ---


async def fetch(answer):
    """Wait, and see where it is."""
    seen = [current()]
    await asyncio.sleep(0)
    seen.append(current())
    return answer, seen


class Fetcher:
    """A coroutine function that is an object."""

    async def __call__(self, answer):
        return await fetch(answer)


COROUTINE_FUNCTIONS = {
    "function": fetch,
    "partial": functools.partial(fetch),
    "object": Fetcher(),
    "method": Fetcher().__call__,
}


@pytest.mark.parametrize("kind", COROUTINE_FUNCTIONS)
@pytest.mark.parametrize("how", ["wrap", "run"])
def test_a_coroutine_is_in_the_context_until_it_ends(kind, how, request_span):
    """Its whole body is, and who awaits it is not."""
    f = COROUTINE_FUNCTIONS[kind]
    handoff = capture()

    async def main():
        call = handoff.wrap(f) if how == "wrap" else functools.partial(handoff.run, f)
        coroutine = call("answer")
        assert inspect.iscoroutine(coroutine)
        assert current() == NOTHING
        result = await coroutine
        assert current() == NOTHING
        return result

    request = (id_of(request_span), "acme")
    assert without_context(asyncio.run, main()) == ("answer", [request, request])


def test_a_wrapped_coroutine_function_is_one():
    """Frameworks that ask whether to await it get the same answer."""
    for f in COROUTINE_FUNCTIONS.values():
        assert inspect.iscoroutinefunction(wrap(f))
    assert not inspect.iscoroutinefunction(wrap(current))


def test_a_function_that_returns_a_coroutine_is_carried(request_span):
    """A lambda around a call is as good as a coroutine function."""

    async def main():
        return [
            await handoff.run(lambda: fetch(1)),
            await handoff.wrap(lambda: fetch(2))(),
            current(),
        ]

    handoff = capture()
    request = (id_of(request_span), "acme")
    expected = [(1, [request, request]), (2, [request, request]), NOTHING]
    assert without_context(asyncio.run, main()) == expected


def test_a_cancelled_coroutine_is_detached(request_span):
    """A task that is cancelled while it waits leaves nothing in what goes on in its flow."""
    handoff = capture()

    async def for_ever():
        started.set()
        await asyncio.Event().wait()

    async def main():
        nonlocal started
        started = asyncio.Event()

        async def outer():
            try:
                await handoff.run(for_ever)
            except asyncio.CancelledError:
                return current()

        task = asyncio.create_task(outer())
        await started.wait()
        task.cancel()
        return await task

    started = None
    assert without_context(asyncio.run, main()) == NOTHING


def test_a_coroutine_that_is_never_awaited_is_one_warning():
    """Python says so of the function that was wrapped, and of nothing of ours."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrap(fetch)("answer")
        gc.collect()
    assert [str(one.message) for one in caught] == ["coroutine 'fetch' was never awaited"]


# --- generator functions ---


def numbers(seen):
    """Yield what is sent, and see where it is at each step."""
    got = None
    try:
        for _ in range(3):
            seen.append(current())
            got = yield got
    except ValueError as error:
        seen.append((str(error), current()))
        yield "thrown"
    finally:
        seen.append(("end", current()))
    return "result"


@pytest.fixture
def steps(request_span):
    """Return a generator of a wrapped function, started, and the list of what it has seen."""
    seen = []
    generator = wrap(numbers)(seen)
    assert without_context(lambda: (next(generator), current())) == (None, NOTHING)
    return generator, seen


def test_a_generator_is_in_the_context_and_its_consumer_is_not(steps, request_span):
    """At every step the body is, with the consumer in whatever context, in whatever thread."""
    generator, seen = steps
    in_a_thread = []
    thread = threading.Thread(
        target=without_context, args=(lambda: in_a_thread.append((generator.send(1), current())),)
    )
    thread.start()
    thread.join(WAIT)
    with capture():
        assert generator.send(2) == 2
        assert current() == (id_of(request_span), "acme")
    with pytest.raises(StopIteration) as stop:
        without_context(generator.send, 3)
    assert stop.value.value == "result"
    request = (id_of(request_span), "acme")
    assert in_a_thread == [(1, NOTHING)]
    assert seen == [request, request, request, ("end", request)]


def test_an_exception_is_thrown_into_a_generator(steps, request_span):
    """The body handles it in its context, and yields on."""
    generator, seen = steps
    request = (id_of(request_span), "acme")
    assert without_context(generator.throw, ValueError("theirs")) == "thrown"
    assert seen == [request, ("theirs", request)]


def test_a_generator_that_is_closed_ends_in_its_context(steps, request_span):
    """`close()`, and dropping it, run its `finally` there."""
    generator, seen = steps
    without_context(generator.close)
    request = (id_of(request_span), "acme")
    assert seen == [request, ("end", request)]
    assert current() == request


def test_a_generator_that_is_dropped_ends_in_its_context(request_span):
    """So does the one that nothing refers to any more."""
    seen = []
    generator = wrap(numbers)(seen)
    next(generator)
    del generator
    gc.collect()
    request = (id_of(request_span), "acme")
    assert seen == [request, ("end", request)]


def test_what_a_generator_attaches_is_current_again_when_it_is_resumed(request_span):
    """A context that it is in over a `yield` stays with it, and its consumer never sees it."""

    def tenants():
        seen = []
        token = attach(set_value("key", "own"))
        for _ in range(2):
            seen.append(in_own())
            yield seen
        detach(token)
        seen.append(in_own())
        yield seen

    def in_own():
        from opentelemetry.context import get_value

        return get_value("key")

    generator = wrap(tenants)()

    def consume():
        kept = None
        for kept in generator:  # noqa: B007 - the last one
            assert in_own() is None
        return kept

    assert without_context(consume) == ["own", "own", None]


def test_generators_that_are_read_in_turn_do_not_see_each_other(tracer):
    """Each is in the context in which it was wrapped."""
    generators = []
    for tenant in "ab":
        with tracer.start_as_current_span(tenant) as span:
            generators.append((id_of(span), wrap(lambda: (yield current()))))
    made = [(expected, make()) for expected, make in generators]
    assert [next(one)[0] for _, one in made] == [expected for expected, _ in made]


def test_a_wrapped_generator_function_is_one():
    """Frameworks that ask whether to iterate get the same answer."""

    async def asynchronous():
        yield

    assert inspect.isgeneratorfunction(wrap(numbers))
    assert inspect.isgeneratorfunction(wrap(functools.partial(numbers, [])))
    assert inspect.isasyncgenfunction(wrap(asynchronous))
    assert not inspect.isgeneratorfunction(wrap(current))


def test_run_of_a_generator_function_carries_it_too(request_span):
    """`run` returns a generator whose body is in the context."""
    seen = []
    generator = capture().run(numbers, seen)
    without_context(list, generator)
    request = (id_of(request_span), "acme")
    assert seen == [request] * 3 + [("end", request)]


def test_a_generator_that_a_function_returns_is_left_alone():
    """It may be anybody's: only the call of the function that returns it is in the context."""
    generator = numbers([])
    assert capture().run(lambda: generator) is generator
    assert wrap(lambda: generator)() is generator


def test_a_generator_based_coroutine_can_still_be_awaited(request_span):
    """`types.coroutine` marks a generator function so that what it returns is awaited."""

    @types.coroutine
    def step(seen):
        seen.append(current())
        yield
        seen.append(current())
        return "answer"

    async def main():
        return await wrapped(seen), current()

    seen = []
    wrapped = wrap(step)
    request = (id_of(request_span), "acme")
    assert without_context(asyncio.run, main()) == ("answer", NOTHING)
    assert seen == [request, request]


# --- asynchronous generator functions ---


async def stream(seen):
    """Do as `numbers` does."""
    got = None
    try:
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(current())
            got = yield got
    except ValueError as error:
        seen.append((str(error), current()))
        yield "thrown"
    finally:
        await asyncio.sleep(0)
        seen.append(("end", current()))


def consumed(consume):
    """Run a consumer of a wrapped asynchronous generator, in no context; return what was seen."""

    async def main():
        await consume(generator)
        assert current() == NOTHING

    seen = []
    generator = wrap(stream)(seen)
    without_context(asyncio.run, main())
    return seen


def test_an_async_generator_is_in_the_context_and_its_consumer_is_not(request_span):
    """Also while it waits, and whoever of several tasks asks for the next."""

    async def consume(generator):
        assert await anext(generator) is None
        assert current() == NOTHING
        assert await asyncio.create_task(generator.asend(1)) == 1
        async for item in generator:
            assert (item, current()) == (None, NOTHING)

    request = (id_of(request_span), "acme")
    assert consumed(consume) == [request, request, request, ("end", request)]


def test_an_exception_is_thrown_into_an_async_generator(request_span):
    """The body handles it in its context, and yields on."""

    async def consume(generator):
        await anext(generator)
        assert await generator.athrow(ValueError("theirs")) == "thrown"
        with pytest.raises(StopAsyncIteration):
            await anext(generator)

    request = (id_of(request_span), "acme")
    assert consumed(consume) == [request, ("theirs", request), ("end", request)]


def test_an_async_generator_that_is_closed_ends_in_its_context(request_span):
    """`aclose()` runs its `finally` there, which may wait."""

    async def consume(generator):
        await anext(generator)
        await generator.aclose()

    request = (id_of(request_span), "acme")
    assert consumed(consume) == [request, ("end", request)]


def test_an_async_generator_that_is_left_is_closed_by_its_loop(request_span):
    """`shutdown_asyncgens`, which `asyncio.run` calls, ends it in its context."""

    async def consume(generator):
        await anext(generator)

    request = (id_of(request_span), "acme")
    assert consumed(consume) == [request, ("end", request)]


# --- what is kept alive ---


class Value:
    """Something that a weak reference sees."""


def test_a_generator_that_is_done_keeps_nothing_alive(no_collector):
    """An exhausted generator, one that has failed, and what was thrown into one hold no context."""
    value = Value()
    dead = weak_reference(value)
    wrapped = in_context(set_value("key", value), wrap, numbers)
    exhausted, closed, failed = wrapped([]), wrapped([]), wrapped([])
    list(exhausted)
    next(closed)
    closed.close()
    next(failed)
    with pytest.raises(KeyError):
        failed.throw(KeyError("theirs"))
    del value, wrapped
    assert dead() is None
    assert exhausted is not closed
