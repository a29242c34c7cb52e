"""Awaits a coroutine in a context, in the task of whoever awaits it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from opentelemetry.context import Context

from otel_concurrency._core import handoff
from otel_concurrency._core.handoff import adopted


async def awaited_in(context: Context, awaitable: Awaitable[Any]) -> Any:
    """Return the result of ``awaitable``, which runs in ``context``. Raises what it raises.

    What it leaves attached, and the items that it has adopted, end with it. The context stays
    current while the task is suspended, so the task must be one that does nothing else meanwhile.
    """
    record = adopted.get()
    token = handoff.attach_safely(context)
    del context
    if record is not None:
        adopted.set(None)
    try:
        result = await awaitable
    except GeneratorExit:  # it is collected, in the context of whoever happens to do that
        raise
    except BaseException:
        _give_back(record, token)
        token = None
        raise
    _give_back(record, token)
    return result


def _give_back(record: Any, token: Any) -> None:
    if adopted.get() is not record:
        adopted.set(record)
    handoff.leave(token)
