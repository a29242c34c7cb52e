"""autogen-core: messages to agents, whoever has started the runtime that hands them on.

It needs no adapter: its runtime's task waits in no request, and each message is handled in a task.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from autogen_core import (
    AgentId,
    DefaultSubscription,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    message_handler,
)
from opentelemetry import baggage, context, trace

pytestmark = pytest.mark.usefixtures("instrumented")

marks = []
"""What was current where a message was handled."""


@dataclass
class Message:
    """What agents send to each other."""

    text: str


class Agent(RoutedAgent):
    """An agent that may send a message to another one."""

    def __init__(self):
        super().__init__("agent")

    @message_handler
    async def handle(self, message: Message, ctx: MessageContext) -> Message:
        span = trace.get_current_span().get_span_context()
        marks.append((message.text, span.trace_id, baggage.get_baggage("tenant")))
        if message.text == "outer":
            await self.send_message(Message("inner"), AgentId("agent", "other"))
        return message


@pytest.fixture
def request_of(tracer):
    """Return what does work in a request with baggage, and returns the request's trace."""

    async def request(tenant, work):
        token = context.attach(baggage.set_baggage("tenant", tenant))
        with tracer.start_as_current_span("request") as span:
            await work()
        context.detach(token)
        return span.get_span_context().trace_id

    return request


def test_a_message_is_handled_in_the_request_that_sends_it(request_of):
    """Directly, by a topic, and from another agent; one that is sent in none is in none."""
    outer, topic, agent = Message("outer"), TopicId("default", "tests"), AgentId("agent", "tests")

    async def use():
        runtime = SingleThreadedAgentRuntime()
        await Agent.register(runtime, "agent", Agent)
        await runtime.add_subscription(
            DefaultSubscription(topic_type="default", agent_type="agent")
        )

        async def start():
            runtime.start()

        await request_of("starter", start)
        for tenant in ("acme", "umbrella"):
            one = await request_of(tenant, lambda: runtime.send_message(outer, agent))
            assert marks == [("outer", one, tenant), ("inner", one, tenant)]
            marks.clear()
        published = Message("published")
        one = await request_of("acme", lambda: runtime.publish_message(published, topic))
        await runtime.send_message(Message("alone"), agent)
        await runtime.stop_when_idle()
        assert marks == [("published", one, "acme"), ("alone", 0, None)]

    asyncio.run(use())
