"""Twisted: what a reactor, which serves the whole program, does while a request is current.

Each in a process of its own, with the reactor that is meant, and the library switched on before
Twisted is imported and after it.
"""

from __future__ import annotations

import pytest
from suite import IN_BOTH_ORDERS, run_program

REACTORS = pytest.mark.parametrize("kind", ["asyncioreactor", "epollreactor"])
FIRST = "twisted.internet.{kind}, twisted.internet.task, twisted.internet.defer"

BEGIN = """
from twisted.internet import {kind}
{kind}.install()
from opentelemetry import context
from twisted.internet import defer, protocol, reactor, task, threads

class request:
    def __init__(self, name):
        self.name = name
    def __enter__(self):
        self.token = context.attach(context.set_value("request", self.name))
    def __exit__(self, *_):
        context.detach(self.token)

seen = []
def look(what):
    seen.append((what, context.get_value("request")))
"""
END = """
reactor.callLater(60, reactor.crash)  # what is waited for has not happened
reactor.run()
print(sorted(set(seen), key=str))
"""


def run(first, kind, program):
    """Run a program on a kind of reactor; return what it has seen, as it prints that."""
    first = first.format(module=FIRST.format(kind=kind))
    return run_program(first + BEGIN.format(kind=kind) + program + END).strip()


@REACTORS
@IN_BOTH_ORDERS
def test_a_heartbeat_is_not_in_the_request_that_armed_the_reactors_timer(first, kind):
    """One that was started outside any, while requests defer to threads and call later."""
    program = """
def beat():
    look("beat")
    whats = [what for what, _ in seen]
    if whats.count("beat") == 3:
        with request("a"):
            threads.deferToThread(int).addCallback(look)
    if whats.count("beat") == 6:
        with request("b"):
            reactor.callLater(0.001, look, "later")
            reactor.callLater(30, look, "much later").reset(0.01)
    if whats.count("beat") >= 12 and {0, "later", "much later"}.issubset(whats):
        reactor.stop()
task.LoopingCall(beat).start(0.005)
"""
    assert run(first, kind, program) == str(
        [("beat", None), ("later", "b"), ("much later", "b"), (0, "a")]
    )


@REACTORS
@IN_BOTH_ORDERS
@pytest.mark.parametrize("answer", ["None", "task.deferLater(reactor, 0.001)"])
def test_each_round_that_a_request_starts_is_a_trace_of_its_own(first, kind, answer):
    """It has a link to the request and its baggage; a first round at once is part of the call."""
    program = """
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
tracer = TracerProvider().get_tracer("program")
def beat():
    with tracer.start_as_current_span("round") as span:
        links = [link.context.span_id == parent.span_id for link in span.links]
        reasons = [link.attributes["otel_concurrency.link.reason"] for link in span.links]
        child = span.parent is not None and span.parent.span_id == parent.span_id
        seen.append((child, span.parent is None, links, reasons, baggage.get_baggage("tenant")))
    if len(seen) == 4:
        reactor.stop()
    return ANSWER
token = context.attach(baggage.set_baggage("tenant", "acme"))
with tracer.start_as_current_span("request") as span:
    parent = span.get_span_context()
    task.LoopingCall(beat).start(0.005)
context.detach(token)
"""
    linked = (False, True, [True], ["periodic"], "acme")
    found = run(first, kind, program.replace("ANSWER", answer) + "\nset = list\n")
    assert found == str(sorted([(True, False, [], [], "acme"), *[linked] * 3], key=str))


@REACTORS
@IN_BOTH_ORDERS
def test_calls_that_were_made_outside_of_requests_run_outside(first, kind):
    """Though the reactor itself runs inside one."""
    program = """
reactor.callFromThread(look, "from a thread")
reactor.callLater(0, look, "later")
reactor.callLater(0.01, lambda: (look("last"), reactor.stop()))
context.attach(context.set_value("request", "main"))
"""
    assert run(first, kind, program) == str(
        [("from a thread", None), ("last", None), ("later", None)]
    )


@REACTORS
@IN_BOTH_ORDERS
def test_a_connection_is_in_none_of_its_requests(first, kind):
    """Nor is what a port accepts in the one that listened, whoever pauses and resumes reading."""
    program = """
class Server(protocol.Protocol):
    def connectionMade(self):
        look("connection")
    def dataReceived(self, data):
        look(data)
        with request(data):
            self.transport.write(data)
            self.transport.pauseProducing()
            self.transport.resumeProducing()
    def connectionLost(self, reason):
        look("lost")
        reactor.stop()

class Client(protocol.Protocol):
    asked = 0
    def connectionMade(self):
        look("client")
        self.ask()
    def ask(self):
        self.asked += 1
        with request(self.asked):
            self.transport.write(b"%d" % self.asked)
            self.transport.pauseProducing()
            self.transport.resumeProducing()
    def dataReceived(self, data):
        look("answer")
        if self.asked < 3:
            self.ask()
        else:
            self.transport.loseConnection()

def listen():
    with request("listening"):
        port = reactor.listenTCP(0, protocol.Factory.forProtocol(Server), interface="127.0.0.1")
        factory = protocol.ClientFactory.forProtocol(Client)
        reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
reactor.callWhenRunning(listen)
"""
    assert run(first, kind, program) == str(
        sorted(
            [(what, None) for what in (b"1", b"2", b"3", "answer", "client", "connection", "lost")],
            key=str,
        )
    )


@REACTORS
@IN_BOTH_ORDERS
def test_cooperative_tasks_are_stepped_each_in_its_own_context(first, kind):
    """Though they share one delayed call of the reactor; one that waits for a Deferred, too."""
    program = """
running = []
def steps(name, count):
    for _ in range(count):
        look(name)
        yield task.deferLater(reactor, 0.001) if _ == 1 else None
def go():
    for name in ("a", "b"):
        with request(name):
            running.append(task.cooperate(steps(name, 6)).whenDone())
    running.append(task.coiterate(steps("none", 3)))
    defer.gatherResults(running).addCallback(lambda _: reactor.stop())
reactor.callWhenRunning(go)
"""
    assert run(first, kind, program) == str([("a", "a"), ("b", "b"), ("none", None)])


@REACTORS
@IN_BOTH_ORDERS
def test_producers_of_responses_are_asked_each_in_the_context_of_its_request(first, kind):
    """Three responses at once that `registerProducer(producer, False)` streams."""
    program = """
from urllib.request import urlopen
from twisted.web import resource, server

class Producer:
    left = 5
    def __init__(self, name, response):
        self.name, self.response = name, response
    def resumeProducing(self):
        look(self.name)
        self.left -= 1
        self.response.write(b"x" * 10)
        if not self.left:
            self.response.unregisterProducer()
            self.response.finish()
    def stopProducing(self):
        pass

waiting = []
class Root(resource.Resource):
    isLeaf = True
    def render_GET(self, response):
        waiting.append(response)
        if len(waiting) == 3:
            for each in waiting:
                name = each.args[b"name"][0].decode()
                with request(name):
                    each.registerProducer(Producer(name, each), False)
        return server.NOT_DONE_YET

def go():
    port = reactor.listenTCP(0, server.Site(Root()), interface="127.0.0.1").getHost().port
    def get(name):
        with urlopen(f"http://127.0.0.1:{port}/?name={name}") as response:
            return len(response.read())
    sizes = defer.gatherResults([threads.deferToThread(get, name) for name in "abc"])
    sizes.addCallback(lambda sizes: (look(str(sizes)), reactor.stop()))
reactor.callWhenRunning(go)
"""
    assert run(first, kind, program) == str(
        [("[50, 50, 50]", None), ("a", "a"), ("b", "b"), ("c", "c")]
    )


@REACTORS
@IN_BOTH_ORDERS
def test_the_polling_of_files_is_in_no_request(first, kind):
    """Files, which epoll refuses, are polled by one loop, started by whoever reads the first."""
    program = """
import os, tempfile
from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor

class File(FileDescriptor):
    def __init__(self, name, times):
        super().__init__(reactor)
        self.file, self.name, self.times = tempfile.TemporaryFile(), name, times
    def fileno(self):
        return self.file.fileno()
    def doRead(self):
        look(self.name)
        self.times -= 1
        if not self.times:
            self.stopReading()
            if self.name == "second":
                reactor.stop()

def go():
    with request("first"):
        File("first", 3).startReading()
    File("second", 5).startReading()
reactor.callWhenRunning(go)
"""
    assert run(first, kind, program) == str([("first", None), ("second", None)])
