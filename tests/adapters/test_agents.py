"""Frameworks for agents, with models that are none: their tools and nodes are in their request.

They need no adapter: tasks of asyncio have a copy of their context, and so has what a pool does.
"""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import agents
import fastmcp
import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)
from opentelemetry import baggage, context, trace
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

pytestmark = pytest.mark.usefixtures("instrumented")

marks: list[Any] = []
"""What was current where a tool, a node, or a callback ran."""


def trace_id(span: trace.Span) -> int:
    """Return which trace a span is of: some of the frameworks make spans of their own below it."""
    return span.get_span_context().trace_id


def mark(*_: Any) -> str:
    """Note what is current here."""
    marks.append((trace_id(trace.get_current_span()), baggage.get_baggage("tenant")))
    return "done"


async def mark_it(*_: Any) -> str:
    """Do so in a coroutine."""
    await asyncio.sleep(0)
    return mark()


class Requests:
    """Two requests, one after the other or both at once."""

    def __init__(self, tracer, expected):
        self.tracer = tracer
        self.expected = expected
        self.tenants = ("acme", "umbrella")

    async def run(self, tenant, work):
        """Do the work in a request with baggage."""
        token = context.attach(baggage.set_baggage("tenant", tenant))
        with self.tracer.start_as_current_span("request") as span:
            await work()
        context.detach(token)
        return trace_id(span), tenant

    async def both(self, work):
        """Do the work in each, and then in both at once; check what was noted."""
        for tenant in self.tenants:
            marks.clear()
            seen = await self.run(tenant, work)
            assert marks == [seen] * self.expected
        marks.clear()
        seen = await asyncio.gather(*(self.run(tenant, work) for tenant in self.tenants))
        assert all(marks.count(one) == self.expected for one in seen)


class State(TypedDict):
    """What the nodes of a graph write into."""

    done: Annotated[list[str], operator.add]


def graph(*nodes):
    """Return a graph whose nodes run at once."""
    built = StateGraph(State)
    for number, node in enumerate(nodes):
        built.add_node(str(number), node)
        built.add_edge(START, str(number))
    return built.compile()


def node(_: State) -> Any:
    """Note what is current, in a thread."""
    return {"done": [mark()]}


async def async_node(_: State) -> Any:
    """Note what is current, in a task."""
    return {"done": [await mark_it()]}


def test_langgraph(tracer):
    """Nodes in tasks and in threads, and what reads a stream of their results."""
    compiled = graph(node, async_node)

    async def use():
        await compiled.ainvoke({"done": []})
        async for _ in compiled.astream({"done": []}):
            mark()

    asyncio.run(Requests(tracer, 6).both(use))


def test_langgraph_in_threads(tracer):
    """The same from a program without a loop; and tasks of a function."""
    compiled = graph(node, node)
    step = task(mark)

    @entrypoint()
    def flow(count: int) -> Any:
        return [one.result() for one in [step(number) for number in range(count)]]

    def use():
        compiled.invoke({"done": []})
        for _ in compiled.stream({"done": []}):
            mark()
        flow.invoke(2)

    for tenant in ("acme", "umbrella"):
        marks.clear()
        token = context.attach(baggage.set_baggage("tenant", tenant))
        with tracer.start_as_current_span("request") as span:
            use()
        context.detach(token)
        assert len(marks) >= 6
        assert set(marks) == {(trace_id(span), tenant)}


def test_pydantic_ai(tracer):
    """Tools that are functions, which run in threads, and tools that are coroutine functions."""
    agent = Agent(TestModel())

    @agent.tool_plain
    def function() -> str:
        return mark()

    @agent.tool_plain
    async def coroutine() -> str:
        return await mark_it()

    asyncio.run(Requests(tracer, 2).both(lambda: agent.run("?")))


class Model(agents.Model):
    """A model that has each tool called, and then is done."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> Any:
        mark()
        if len(input) == 1:
            output = [
                ResponseFunctionToolCall(
                    type="function_call", name=name, arguments="{}", call_id=name
                )
                for name in ("function", "coroutine")
            ]
        else:
            text = ResponseOutputText(type="output_text", text="done", annotations=[])
            output = [
                ResponseOutputMessage(
                    id="1", type="message", role="assistant", status="completed", content=[text]
                )
            ]
        return agents.ModelResponse(output=output, usage=agents.Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def test_openai_agents(tracer, monkeypatch):
    """The model, and tools of both kinds, of an agent."""
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    agents.set_tracing_disabled(True)

    @agents.function_tool
    def function() -> str:
        return mark()

    @agents.function_tool
    async def coroutine() -> str:
        return await mark_it()

    agent = agents.Agent(name="agent", model=Model(), tools=[function, coroutine])
    asyncio.run(Requests(tracer, 4).both(lambda: agents.Runner.run(agent, "?")))


def test_fastmcp(tracer):
    """Tools of both kinds, and progress, in a session that another request has opened."""
    server = fastmcp.FastMCP("tests")

    @server.tool
    def function() -> str:
        return mark()

    @server.tool
    async def coroutine(ctx: fastmcp.Context) -> str:
        await ctx.report_progress(1, 2)
        return await mark_it()

    client = fastmcp.Client(server, progress_handler=mark_it)

    async def call():
        await client.call_tool("function")
        await client.call_tool("coroutine")

    async def use():
        requests = Requests(tracer, 3)
        await requests.run("opener", client.__aenter__)
        await requests.both(call)
        await client.__aexit__(None, None, None)

    asyncio.run(use())
