"""A fault in the library, or in what it calls, costs the program a parent and nothing else.

Faults are injected one at a time into every step of a hand-off, under every form. The program's
results, exceptions and callbacks are what they are without the library, and each cause is logged
once, however often it strikes.
"""

from __future__ import annotations

import logging
import threading

import pytest
from forms import FORMS, WAIT, RunInThreadPerCall, Submit, without_context
from injection import InjectedError, always_fail, wherever_it_is
from opentelemetry.context import attach, detach, get_current, set_value

from interpreters import THREADS_INHERIT
from otel_concurrency import ConcurrencyInstrumentor, _primitives
from otel_concurrency._clean_starts import matching
from otel_concurrency._linking import policies

patched = [form for form in FORMS if form.setting is not None]


FAULTS = {
    "get_current raises": wherever_it_is("get_current"),
    "attach raises": wherever_it_is("attach"),
    "detach raises": wherever_it_is("detach"),
    "the policy raises": lambda patch: patch(policies, "capture_for", always_fail),
    "the matcher of threads raises": lambda patch: patch(matching, "thread_matcher", always_fail),
    "the matcher of callables raises": lambda patch: patch(
        matching, "callable_matcher", always_fail
    ),
}

strikes = {
    "the matcher of threads raises": lambda form: form.setting == "threading",
    "the matcher of callables raises": lambda form: form.setting != "threading",
    # It attaches in the thread of the test itself, which is left in it where nothing can detach.
    "detach raises": lambda form: not form.name.startswith("Executor.map(buffersize"),
}

every_fault = pytest.mark.parametrize(
    ("form", "fault"),
    [
        pytest.param(form, FAULTS[name], id=f"{form.name}, {name}")
        for form in patched
        for name in FAULTS
        if strikes.get(name, lambda form: True)(form)
    ],
    indirect=True,
)


@pytest.fixture
def fault(request, monkeypatch):
    """Inject the fault, and see that nothing of it is left in this thread afterwards."""
    request.param(monkeypatch.setattr)
    return request.param


@pytest.fixture
def form(request, fault):
    """Switch on what covers the form, with the fault in place, and open the form."""
    inherits = THREADS_INHERIT or request.config.getoption("--beside-official")
    attaching = fault in (FAULTS["attach raises"], FAULTS["detach raises"])
    if inherits and attaching and request.param is RunInThreadPerCall:
        pytest.skip("its thread has the context already, which is not attached again")
    others = [name for name in _primitives.NAMES if name != request.param.setting]
    ConcurrencyInstrumentor().instrument(**dict.fromkeys(others, "off"))
    with request.param() as opened:
        yield opened
    ConcurrencyInstrumentor().uninstrument()


@pytest.fixture
def warnings(caplog):
    """Return a function that returns what the library has logged, without its own switching on."""
    caplog.set_level(logging.WARNING, "otel_concurrency")

    def logged():
        return [record for record in caplog.records if record.name.startswith("otel_concurrency")]

    return logged


def in_context(function, *args):
    """Call ``function`` where there is something to carry, in a flow that can be thrown away."""

    def call():
        attach(set_value("value", "a"))
        return function(*args)

    return without_context(call)


@every_fault
def test_a_fault_costs_the_program_nothing_and_is_logged_once(form, warnings):
    """Three hand-offs all run, once each, with their results; the fault is in the log once."""
    ran, result = [], object()

    def work():
        ran.append(threading.get_ident())
        return result

    for _ in range(3):
        handle = in_context(form.hand_off, work)
        handle.wait()
        assert handle.result is None or handle.result() is result

    assert len(ran) == 3
    (record,) = warnings()
    assert record.levelno == logging.WARNING
    assert "InjectedError" in record.getMessage()
    assert record.exc_info[0] is InjectedError


@every_fault
def test_an_exception_of_the_program_passes_a_fault_untouched(form):
    """The work's own exception arrives, and not one of the library's, nor chained to one."""
    raised = ValueError("of the program")

    def work():
        raise raised

    handle = in_context(form.hand_off, work)
    handle.wait()

    assert handle.error() is raised
    assert raised.__context__ is None
    raised.__traceback__ = None


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS, indirect=True)
@pytest.mark.parametrize("form", [Submit], ids=["submit"], indirect=True)
def test_cancelling_and_completing_work_under_a_fault(form):
    """A future is cancelled, completed, and calls its callbacks, whatever has failed on the way."""
    called = []

    with form.occupied():
        cancelled = in_context(form.pool.submit, int)
        in_context(cancelled.add_done_callback, called.append)
        assert without_context(cancelled.cancel)
    completed = in_context(form.pool.submit, int)
    assert completed.result(WAIT) == 0
    in_context(completed.add_done_callback, called.append)

    assert called == [cancelled, completed]


def test_a_logging_handler_that_raises_does_not_hurt_the_program(monkeypatch):
    """Reporting a fault cannot fail, not even where the program's own handler does."""
    wherever_it_is("get_current")(monkeypatch.setattr)

    class Handler(logging.Handler):
        def handle(self, record):
            raise InjectedError

    handler = Handler()
    logger = logging.getLogger("otel_concurrency")
    logger.addHandler(handler)
    ConcurrencyInstrumentor().instrument()
    try:
        with Submit() as form:
            assert in_context(form.pool.submit, int).result(WAIT) == 0
    finally:
        ConcurrencyInstrumentor().uninstrument()
        logger.removeHandler(handler)


def test_a_future_whose_context_is_given_up_while_its_item_waits():
    """Work whose context somebody has dropped meanwhile runs all the same, in none."""
    ConcurrencyInstrumentor().instrument()
    token = attach(set_value("value", "a"))
    try:
        with Submit() as form:
            with form.occupied():
                future = form.pool.submit(lambda: dict(get_current()))
                future._result = None
            assert future.result(WAIT) == {}
            assert form.pool.submit(int).result(WAIT) == 0
    finally:
        detach(token)
        ConcurrencyInstrumentor().uninstrument()
