"""google-adk: agents with a model that is none; what they call is in their request.

It needs no adapter: tasks of asyncio have a copy of their context, and its thread gets one.
"""

from __future__ import annotations

import asyncio

import pytest
from google.adk.agents import LlmAgent, ParallelAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types
from opentelemetry import baggage, context, trace

pytestmark = [
    pytest.mark.usefixtures("instrumented"),
    pytest.mark.filterwarnings("ignore"),  # the library warns of what it is to become
]

marks = []
"""What was current where the model or a tool was called."""


def mark():
    """Note what is current here."""
    span = trace.get_current_span().get_span_context()
    marks.append((span.trace_id, baggage.get_baggage("tenant")))
    return "done"


def function() -> str:
    """Be a tool."""
    return mark()


async def coroutine() -> str:
    """Be a tool that waits."""
    await asyncio.sleep(0)
    return mark()


class Model(BaseLlm):
    """A model that has each tool called, and then is done."""

    async def generate_content_async(self, llm_request, stream=False):
        mark()
        parts = [part for content in llm_request.contents for part in content.parts]
        if any(part.function_response for part in parts):
            answer = [types.Part.from_text(text="done")]
        else:
            answer = [
                types.Part.from_function_call(name=name, args={})
                for name in ("function", "coroutine")
            ]
        yield LlmResponse(content=types.Content(role="model", parts=answer))


@pytest.fixture
def runner():
    """Return what runs two agents at once."""
    agents = [
        LlmAgent(name=name, model=Model(model="tests"), tools=[function, coroutine])
        for name in ("one", "other")
    ]
    marks.clear()
    both = ParallelAgent(name="both", sub_agents=agents)
    return InMemoryRunner(both, app_name="tests")


async def session_of(runner):
    """Make a session; return what it is asked by."""
    session = await runner.session_service.create_session(app_name="tests", user_id="tests")
    return {
        "user_id": "tests",
        "session_id": session.id,
        "new_message": types.UserContent("?"),
    }


def test_tools_of_agents_in_tasks(runner, tracer):
    """Each is in its request, in one after the other and in two at once."""

    async def request(tenant):
        token = context.attach(baggage.set_baggage("tenant", tenant))
        with tracer.start_as_current_span("request") as span:
            async for _ in runner.run_async(**await session_of(runner)):
                pass
        context.detach(token)
        return span.get_span_context().trace_id, tenant

    async def use():
        seen = [await request("acme"), await request("umbrella")]
        seen += await asyncio.gather(request("one"), request("two"))
        assert [marks.count(one) for one in seen] == [8] * 4
        assert len(marks) == 32

    asyncio.run(use())


def test_tools_of_agents_from_a_program_without_a_loop(runner, tracer):
    """They run in a thread, in the request that asks."""
    asked = asyncio.run(session_of(runner))
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    with tracer.start_as_current_span("request") as span:
        list(runner.run(**asked))
    context.detach(token)
    assert marks == [(span.get_span_context().trace_id, "acme")] * 8
