"""Mistakes: each is one clear error where it is made, or one warning."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
from opentelemetry import context as context_api
from seen import NOTHING, WAIT, current, id_of, without_context

from otel_concurrency import HandOff, batch, capture, clean, wrap

pytestmark = pytest.mark.usefixtures("library")


@pytest.mark.parametrize("policy", ["off", "LINK", "", None, 5])
@pytest.mark.parametrize("function", [capture, lambda policy: wrap(int, policy)])
def test_an_unknown_policy_is_an_error(policy, function):
    """It quotes the policy and names the valid ones."""
    with pytest.raises(ValueError, match="'parent' or 'link'") as raised:
        function(policy)
    assert repr(policy) in str(raised.value)


@pytest.mark.parametrize("thing", [5, None, "work", HandOff.from_headers({})])
def test_what_cannot_be_called_cannot_be_wrapped(thing):
    """The error comes where it is wrapped, not where it would be called."""
    with pytest.raises(TypeError, match="only a callable can be wrapped") as raised:
        wrap(thing)
    assert repr(thing) in str(raised.value)


def test_what_a_function_has_returned_cannot_be_wrapped():
    """For a coroutine and a generator the error says to wrap the function."""

    async def fetch():
        pass

    coroutine = fetch()
    for thing in (coroutine, (number for number in ())):
        with pytest.raises(TypeError, match="wrap the function, not what it returns"):
            wrap(thing)
    coroutine.close()


def test_run_of_what_cannot_be_called_is_pythons_error():
    """`run` calls it, as a program would."""
    with pytest.raises(TypeError, match="'int' object is not callable"):
        capture().run(5)
    assert current() == NOTHING


@pytest.mark.parametrize("given", [[None], ["handoff"], [clean(), 5]])
def test_a_batch_is_of_hand_offs(given):
    """Anything else in it is named."""
    with pytest.raises(TypeError, match="batch\\(\\) takes HandOff objects") as raised:
        batch(given)
    assert repr(given[-1]) in str(raised.value)


def test_a_batch_is_several():
    """One hand-off alone is no batch."""
    with pytest.raises(TypeError, match=r"HandOff.* not iterable"):
        batch(capture())


def test_a_hand_off_left_in_another_task_is_one_warning(request_span, caplog):
    """Nothing is detached there, and the next who enters it is not disturbed."""
    handoff = capture()

    async def enter():
        handoff.__enter__()

    async def leave():
        before = current()
        handoff.__exit__(None, None, None)
        return before, current()

    async def use():
        with handoff:
            inside = current()
        return inside, current()

    async def main():
        await asyncio.create_task(enter())
        left = [await asyncio.create_task(leave()) for _ in range(2)]
        return left, [await asyncio.create_task(use()) for _ in range(2)]

    left, used = without_context(asyncio.run, main())
    assert left == [(NOTHING, NOTHING)] * 2
    assert used == [((id_of(request_span), "acme"), NOTHING)] * 2
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "test_misuse.py:" in record.getMessage()
    assert "in another thread or task" in record.getMessage()
    assert not record.exc_info


def test_a_hand_off_left_by_another_thread_is_one_warning(request_span, caplog):
    """A generator that yields inside `with` is resumed wherever its consumer is."""
    handoff = capture()

    def stream():
        with handoff:
            yield current()

    def elsewhere():
        seen.append(current())
        list(generator)
        seen.append(current())

    def consume():
        next(generator)
        thread = threading.Thread(target=without_context, args=(elsewhere,))
        thread.start()
        thread.join(WAIT)

    seen = []
    generator = stream()
    without_context(consume)
    assert seen == [NOTHING, NOTHING]
    assert len(caplog.records) == 1


def test_a_hand_off_that_was_never_entered_is_one_warning(caplog):
    """To leave it is no error of the program's own work."""
    capture().__exit__(None, None, None)
    assert current() == NOTHING
    assert len(caplog.records) == 1


RUNTIME = """
import contextvars, logging, sys, threading
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
import opentelemetry.context as api

class Own(ContextVarsRuntimeContext):
    pass

api._RUNTIME_CONTEXT = Own()
from otel_concurrency import capture
context.attach(context.set_value("key", "value"))
handoff = capture()

def work(barrier):
    seen = []
    for _ in range(3):
        with handoff:
            barrier.wait(30)
            with handoff:
                seen.append(context.get_value("key"))
            seen.append(context.get_value("key"))
        seen.append(context.get_value("key"))
    assert seen == ["value", "value", None] * 3, seen

barrier = threading.Barrier(4)
threads = [threading.Thread(target=contextvars.Context().run, args=(work, barrier)) for _ in "1234"]
for thread in threads: thread.start()
for thread in threads: thread.join(30)
handoff.__exit__(None, None, None)

def fail(context):
    raise ValueError("theirs")

Own.attach = lambda self, context: fail(context)
assert handoff.run(int) == handoff.wrap(int)() == 0
with handoff:
    pass
print("done")
"""


def test_it_works_with_another_runtime_context():
    """With a context of somebody else's making, which does not tell whose a token is."""
    done = subprocess.run(
        [sys.executable, "-c", RUNTIME], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "done\n"
    assert done.stderr.count("in another thread or task") == 1
    assert done.stderr.count("ValueError: theirs") == 2  # in one message, and its traceback
    assert "Failed to detach" not in done.stderr


def test_a_runtime_context_that_fails_is_one_warning(monkeypatch, caplog):
    """The program's block runs all the same."""
    from otel_concurrency._by_hand import callables, handoffs
    from otel_concurrency._core import handoff as hot_path

    def fail(*_):
        raise ValueError("theirs")

    handoff = capture()
    monkeypatch.setattr(handoffs, "attach", fail)
    monkeypatch.setattr(handoffs, "_claim", fail)
    monkeypatch.setattr(handoffs, "get_current", fail)
    monkeypatch.setattr(callables, "attach", fail)
    monkeypatch.setattr(hot_path, "attach", fail)
    ran = []
    for _ in range(3):
        with handoff, capture():
            ran.append(1)
        handoff.run(ran.append, 2)
        handoff.wrap(ran.append)(3)
    assert ran == [1, 2, 3] * 3
    assert 1 <= len(caplog.records) <= 2
    assert context_api.get_current() == {}


class Puzzling:
    """A callable that cannot be asked what kind it is."""

    @property
    def __class__(self):
        raise LookupError("theirs")

    def __call__(self):
        return 5


def test_a_callable_that_cannot_be_looked_at_is_left_as_it_is(caplog):
    """It is one warning, and the call goes through."""
    puzzling = Puzzling()
    for _ in range(2):
        assert capture().wrap(puzzling)() == 5
        assert capture().run(puzzling) == 5
    (record,) = caplog.records
    assert "LookupError" in record.getMessage()
