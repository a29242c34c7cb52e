"""cassandra-driver: the futures of its responses, without a cluster."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, Calls, answer_of, answering, check_undo, outside, run_program

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Python has not all of the loops that it looks for
    from cassandra import cluster


def future():
    """Return the future of a response, from no host."""
    balancer = SimpleNamespace(make_query_plan=lambda *_: ())
    owner = SimpleNamespace(_default_load_balancing_policy=balancer)
    session = SimpleNamespace(row_factory=None, keyspace=None, cluster=owner)
    return cluster.ResponseFuture(session, None, None, None)


class TestCallback(Calls):
    setting = "futures"

    def add(self, response, function):
        response.add_callback(function)

    def end(self, response):
        response._set_final_result([])

    def hand_off(self, work):
        answers = []

        response = future()
        self.add(response, answering(work, answers))
        outside(self.end, response)
        return answer_of(answers)


class TestErrback(TestCallback):
    def add(self, response, function):
        response.add_errback(function)

    def end(self, response):
        response._set_final_exception(KeyError())


class TestBoth(TestCallback):
    def add(self, response, function):
        response.add_callbacks(function, print)


def test_of_a_response_that_is_there_it_is_called_at_once(instrument, tracer):
    """In the context that is current then."""
    instrument()
    seen, response = [], future()
    response._set_final_result([])
    with tracer.start_as_current_span("origin") as origin:
        response.add_callback(lambda _: seen.append(trace.get_current_span()))
        assert seen == [origin]


def test_a_callback_gets_its_arguments(instrument):
    """As without the library, also by keyword."""
    instrument()
    seen, response = [], future()
    response.add_callbacks(
        lambda *args, **kwargs: seen.append((args, kwargs)),
        print,
        callback_args=(1,),
        callback_kwargs={"a": 2},
    )
    response._set_final_result("rows")
    assert seen == [(("rows", 1), {"a": 2})]


@pytest.mark.parametrize("pages", [1, 3])
def test_each_page_is_in_the_context_of_the_registration(pages, instrument, tracer):
    """A callback that fetches the next page is called again; the last one lets go of it."""
    instrument()
    seen, response = [], future()
    with tracer.start_as_current_span("origin") as origin:
        response.add_callback(lambda _: seen.append(trace.get_current_span()))
    outside(response.add_callback, lambda _: seen.append(context.get_current()))
    for page in range(pages):
        response._paging_state = b"more" if page < pages - 1 else None
        outside(response._set_final_result, [])
    assert seen == [origin, {}] * pages
    outside(response._set_final_result, [])
    assert seen[-2:] == [trace.INVALID_SPAN, {}]


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = """
from opentelemetry import context
from cassandra.cluster import ResponseFuture
from types import SimpleNamespace
from threading import Lock, Event
response = ResponseFuture.__new__(ResponseFuture)
response._callback_lock, response._callbacks, response._event = Lock(), [], Event()
context.attach(context.set_value("key", "value"))
response.add_callback(lambda _: print(context.get_value("key")))
context.attach({})
response._set_final_result([])
"""
    quiet = "import warnings; warnings.simplefilter('ignore')\n"
    assert run_program(quiet + first.format(module="cassandra.cluster") + program) == "value\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(cluster.ResponseFuture)
