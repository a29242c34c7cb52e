#!/usr/bin/env bash
# A cancelled `send` of anyio's memory stream may have delivered its item; one of trio's own may not.
#
# One would guess: a `send` that ends with the cancellation has sent nothing, so the item can be sent
# again, and whatever lies beside it (a context, a lock, a counter) can be dropped. Trio says so of its
# channels, and under trio anyio's streams would seem to be those.
# What happens: between the cancellation and the moment at which the sender goes on, the item still is
# in the stream, and a receiver gets it. The send is cancelled all the same, under asyncio and under trio
# alike. Trio's own channel takes the item out at once when the sender is cancelled
# (trio.MemorySendChannel.send, `abort_fn`); anyio's waits for an Event, and looks for its item only
# afterwards (anyio.streams.memory.MemoryObjectSendStream.send, `finally`).
# Why it matters: who carries a context beside an item, and drops it when the send fails, hands the
# receiver an item without its context; who sends again after the cancellation sends twice.
# Seen with anyio 4.16.0, trio 0.35.0, Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check anyio==4.16.0 trio==0.35.0

cat >program.py <<'PYTHON'
import anyio
import trio


async def cancel_and_receive(send, receive):
    """Cancel a sender that waits, and look at once whether its item is there."""
    seen, scopes = [], []

    async def sender():
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await send("item")
        seen.append("send was cancelled" if scope.cancelled_caught else "send returned")

    async with anyio.create_task_group() as group:
        group.start_soon(sender)
        await anyio.wait_all_tasks_blocked()
        scopes[0].cancel()
        try:
            seen.append(f"received: {receive()}")
        except (anyio.WouldBlock, trio.WouldBlock):
            seen.append("received: nothing")
    return ", ".join(seen)


async def with_anyio():
    send, receive = anyio.create_memory_object_stream(0)
    with send, receive:
        return await cancel_and_receive(send.send, receive.receive_nowait)


async def with_trio():
    send, receive = trio.open_memory_channel(0)
    return await cancel_and_receive(send.send, receive.receive_nowait)


print("anyio, asyncio:", anyio.run(with_anyio, backend="asyncio"))
print("anyio, trio:   ", anyio.run(with_anyio, backend="trio"))
print("trio's own:    ", anyio.run(with_trio, backend="trio"))
PYTHON

env/bin/python -m pip list 2>/dev/null | grep -E '^(anyio|trio) '
env/bin/python program.py | tee seen
cat >expected <<'TEXT'
anyio, asyncio: received: item, send was cancelled
anyio, trio:    received: item, send was cancelled
trio's own:     received: nothing, send was cancelled
TEXT
diff expected seen
