"""gRPC: callbacks of calls on both sides, request iterators, and handlers in the server's pool."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc import _channel, _server, _utilities
from opentelemetry import context, trace
from suite import IN_BOTH_ORDERS, WAIT, Calls, check_undo, outside, run_program


class _Service:
    """A server with a unary method and one that streams until it is told to end."""

    def __init__(self):
        self.handle = lambda request, call: request
        self.end = threading.Event()
        handlers = {
            "unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "upload": grpc.stream_unary_rpc_method_handler(self.upload),
        }
        self.server = grpc.server(ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("tests", handlers),)
        )
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def unary(self, request, call):
        return self.handle(request, call)

    def stream(self, request, call):
        yield request
        self.end.wait(WAIT)

    def upload(self, requests, call):
        return b"".join(requests)

    def close(self):
        self.end.set()
        self.channel.close()
        self.server.stop(None).wait()


@pytest.fixture
def service():
    """Return a service that runs, and a channel to it."""
    service = _Service()
    yield service
    service.close()


def _outcome(register, work):
    """Hand ``work`` off as a callback; wait for it, and return what it returned."""
    done, outcome = threading.Event(), []

    def callback(*_):
        try:
            outcome.append((work(), None))
        except Exception as error:
            outcome.append((None, error))
        finally:
            done.set()

    register(callback)
    assert done.wait(WAIT)
    result, error = outcome.pop()
    if error is not None:
        raise error
    return result


class TestClientsCallback(Calls):
    """While another call of the same channel goes on, whose thread it is."""

    setting = "futures"

    @pytest.fixture(autouse=True)
    def worker(self, service):
        self.service = service
        self.go = threading.Event()
        service.handle = lambda request, call: (self.go.wait(WAIT), request)[1]
        self.long = outside(service.channel.unary_stream("/tests/stream"), b"1")
        assert next(self.long) == b"1"
        yield
        service.end.set()

    def hand_off(self, work):
        self.go.clear()
        future = self.service.channel.unary_unary("/tests/unary").future(b"1")

        def register(callback):
            future.add_done_callback(callback)
            self.go.set()

        return _outcome(register, work)


class TestStreamsCallback(TestClientsCallback):
    def hand_off(self, work):
        call = self.service.channel.unary_stream("/tests/stream")(b"1")
        assert next(call) == b"1"

        def register(callback):
            assert call.add_callback(callback)
            call.cancel()

        return _outcome(register, work)


class TestServersCallback(Calls):
    """A handler registers it, and it runs when the call has ended."""

    setting = "futures"

    @pytest.fixture(autouse=True)
    def worker(self, service):
        self.service = service

    def hand_off(self, work):
        current = context.get_current()

        def register(callback):
            def handle(request, call):
                token = context.attach(current)
                assert call.add_callback(callback)
                context.detach(token)
                return request

            self.service.handle = handle
            self.service.channel.unary_unary("/tests/unary")(b"1")

        return _outcome(register, work)


def test_a_callback_has_its_own_context_while_another_call_goes_on(service, instrument, tracer):
    """Though its thread runs in a copy of that one's: with a context, and without one."""
    instrument()
    with tracer.start_as_current_span("another"):
        long = service.channel.unary_stream("/tests/stream")(b"1")
        assert next(long) == b"1"

    def see():
        future = service.channel.unary_unary("/tests/unary").future(b"1")
        return _outcome(future.add_done_callback, trace.get_current_span)

    with tracer.start_as_current_span("origin") as origin:
        assert see() is origin
    assert outside(see) is trace.INVALID_SPAN


def test_requests_are_iterated_in_the_context_of_the_call(service, instrument, tracer):
    """Which gRPC sees to by itself."""
    instrument()
    seen = []

    def requests():
        seen.append(trace.get_current_span())
        yield b"1"

    upload = service.channel.stream_unary("/tests/upload")
    with tracer.start_as_current_span("origin") as origin:
        upload(requests())
    outside(upload, requests())
    assert seen == [origin, trace.INVALID_SPAN]


def test_a_handler_starts_clean_and_hands_on(instrument, tracer):
    """Whoever started the server; and what its own span hands to a pool is a child of that."""
    instrument()
    with tracer.start_as_current_span("starter"):
        service = _Service()
    seen = []
    with ThreadPoolExecutor(1) as pool:

        def handle(request, call):
            seen.append(bool(context.get_current()))
            with tracer.start_as_current_span("handler") as span:
                seen.append(pool.submit(trace.get_current_span).result(WAIT) is span)
            context.attach(context.set_value("forgotten", 1))
            return request

        service.handle = handle
        for _ in range(2):
            service.channel.unary_unary("/tests/unary")(b"1")
    service.close()
    assert seen == [False, True] * 2


def test_a_callback_of_a_channel_that_is_to_be_ready(service, instrument, tracer):
    """It runs in the context of its registration."""
    instrument()
    with tracer.start_as_current_span("origin") as origin:
        future = grpc.channel_ready_future(service.channel)
        assert _outcome(future.add_done_callback, trace.get_current_span) is origin


@IN_BOTH_ORDERS
def test_imported_before_or_after(first):
    """The order of imports does not matter."""
    program = (
        first.format(module="grpc")
        + """
import threading
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import context
done = threading.Event()
def tell(*_):
    print(context.get_value("key"))
    done.set()
def handle(request, call):
    token = context.attach(context.set_value("key", "handler"))
    call.add_callback(tell)
    context.detach(token)
    return request
server = grpc.server(ThreadPoolExecutor())
handlers = {"call": grpc.unary_unary_rpc_method_handler(handle)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    channel.unary_unary("/tests/call")(b"1")
    assert done.wait(20)
    done.clear()
    context.attach(context.set_value("key", "client"))
    grpc.channel_ready_future(channel).add_done_callback(tell)
    assert done.wait(20)
server.stop(None).wait()
"""
    )
    assert run_program(program) == "handler\nclient\n"


def test_undo_is_exact():
    """Every attribute that was replaced is what it was, by identity."""
    check_undo(
        _channel._Rendezvous,
        _channel._SingleThreadedRendezvous,
        _channel._MultiThreadedRendezvous,
        _server._Context,
        _utilities._ChannelReadyFuture,
    )
