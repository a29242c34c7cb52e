"""Answers of models that are streamed, by clients and agents with their own instrumentation.

The program's generators hold a span around the stream of a library. What the library's
instrumentation makes belongs to that span, and what the readers do belongs to the readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import threading

import pytest
from openai import AsyncOpenAI, OpenAI
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from pydantic_ai import Agent
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from suite import WAIT
from test_streams import Parents, tracer, tracer_provider  # noqa: F401 - fixtures
from web import serving

from otel_concurrency._generators import monitoring

pytestmark = [
    pytest.mark.skipif(
        not monitoring.IS_THERE, reason="before CPython 3.12 a suspension is not heard of"
    ),
    pytest.mark.usefixtures("instrumented"),
]

WORDS = ["one", "two", "three"]


async def complete(_request):
    """Stream an answer as the API of OpenAI's models does."""

    async def events():
        for word in WORDS:
            choice = {"index": 0, "delta": {"role": "assistant", "content": word}}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "fake"}
            yield f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture
def openai(tracer_provider):  # noqa: F811
    """Have the official instrumentor on, and yield the address of a server that streams."""
    OpenAIInstrumentor().instrument(tracer_provider=tracer_provider)
    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    with serving(app) as (host, port):
        yield {"base_url": f"http://{host}:{port}/v1", "api_key": "none", "timeout": WAIT}
    OpenAIInstrumentor().uninstrument()


QUESTION = {"model": "fake", "messages": [{"role": "user", "content": "?"}], "stream": True}


def answer(client, tracer):  # noqa: F811
    """Yield the words of an answer."""
    with (
        tracer.start_as_current_span("answer"),
        client.chat.completions.create(**QUESTION) as chunks,
    ):
        for chunk in chunks:
            tracer.start_span("chunk").end()
            yield chunk.choices[0].delta.content


async def answer_async(client, tracer):  # noqa: F811
    """Yield the words of an answer."""
    with tracer.start_as_current_span("answer"):
        async with await client.chat.completions.create(**QUESTION) as chunks:
            async for chunk in chunks:
                tracer.start_span("chunk").end()
                yield chunk.choices[0].delta.content


def check(exporter, chunks, readers):
    """Check where spans belong: of the library to the answers, of the readers to the request."""
    parents = Parents(exporter)
    answers = parents.of("answer")
    assert set(answers) == {"request"}
    assert parents.of("chat fake") == ["answer"] * len(answers)
    assert parents.of("chunk") == ["answer"] * chunks
    assert parents.of("reader") == ["request"] * readers
    assert parents.of("request") == [None]


@pytest.mark.parametrize("ending", ["all", "left", "left to another thread"])
def test_openai(ending, openai, tracer, exporter, caplog):  # noqa: F811
    """Two answers that are read in turn, to the end or not."""
    with (
        caplog.at_level(logging.WARNING),
        OpenAI(**openai) as client,
        tracer.start_as_current_span("request"),
    ):
        answers = [answer(client, tracer) for _ in range(2)]
        words = WORDS if ending == "all" else WORDS[:2]
        for word in words:
            for one in answers:
                assert next(one) == word
                tracer.start_span("reader").end()
        if ending == "all":
            assert [list(one) for one in answers] == [[], []]
        elif ending == "left":
            del one
            answers.clear()
            gc.collect()
        else:
            closing = threading.Thread(target=lambda: [one.close() for one in answers])
            closing.start()
            closing.join()
        tracer.start_span("reader").end()
    check(exporter, chunks=2 * len(words), readers=2 * len(words) + 1)
    assert not caplog.records


@pytest.mark.parametrize("ending", ["all", "left", "left to another task"])
def test_openai_asynchronous(ending, openai, tracer, exporter, caplog):  # noqa: F811
    """The same for the asynchronous client."""

    async def main():
        async with AsyncOpenAI(**openai) as client:
            answers = [answer_async(client, tracer) for _ in range(2)]
            words = WORDS if ending == "all" else WORDS[:2]
            for word in words:
                for one in answers:
                    assert await anext(one) == word
                    tracer.start_span("reader").end()
            if ending == "all":
                for one in answers:
                    assert [word async for word in one] == []
            elif ending == "left":
                del one
                answers.clear()
                gc.collect()
                while len(asyncio.all_tasks()) > 1:  # the loop closes them
                    await asyncio.sleep(0)
            else:
                await asyncio.gather(*(asyncio.create_task(one.aclose()) for one in answers))
            tracer.start_span("reader").end()
        return len(words)

    with caplog.at_level(logging.WARNING), tracer.start_as_current_span("request"):
        words = asyncio.run(main())
    check(exporter, chunks=2 * words, readers=2 * words + 1)
    assert not caplog.records


async def say(_messages, _info):
    """Stream an answer as a model."""
    for word in WORDS:
        await asyncio.sleep(0)
        yield word


@pytest.fixture
def agent(tracer_provider):  # noqa: F811
    """Return an agent of pydantic-ai, with its own instrumentation, and a model that is none."""
    agent = Agent(FunctionModel(stream_function=say), name="agent")
    agent.instrument = InstrumentationSettings(tracer_provider=tracer_provider)
    return agent


async def texts(agent, tracer):  # noqa: F811
    """Yield the words of an agent's answer."""
    with tracer.start_as_current_span("answer"):
        async with agent.run_stream("?") as result:
            async for word in result.stream_text(delta=True, debounce_by=None):
                tracer.start_span("chunk").end()
                yield word


async def events(agent, tracer):  # noqa: F811
    """Yield all that happens in an agent's run."""
    with tracer.start_as_current_span("answer"):
        async with agent.run_stream_events("?") as stream:
            async for event in stream:
                tracer.start_span("chunk").end()
                yield event


@pytest.mark.parametrize("stream", [texts, events])
@pytest.mark.parametrize("leaves", [False, True], ids=["to the end", "left early"])
def test_pydantic_ai(leaves, stream, agent, tracer, exporter, caplog):  # noqa: F811
    """An agent's run belongs to the answer, and what its readers do to the request."""

    async def main():
        async with contextlib.aclosing(stream(agent, tracer)) as answer:
            async for _ in answer:
                tracer.start_span("reader").end()
                if leaves:
                    break
        tracer.start_span("reader").end()

    with caplog.at_level(logging.WARNING), tracer.start_as_current_span("request"):
        asyncio.run(main())
    parents = Parents(exporter)
    assert set(parents.of("reader")) == {"request"}
    assert parents.of("answer") == ["request"]
    assert parents.of("invoke_agent agent") == ["answer"]
    assert parents.of("chat function::say") == ["invoke_agent agent"]
    assert "request" not in parents.of("chunk")
    assert parents.of("request") == [None]
    assert not caplog.records
