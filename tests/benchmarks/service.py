"""A real service: FastAPI under uvicorn, asked over connections that stay open, with and without.

The server is ``served.py``, a process of its own. It is switched on and off between rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import measure as measuring
from operations import COMPILED, IMPLEMENTATIONS, OFFICIAL, OURS, PLAIN, PLAIN_AGAIN, PURE

NAME = "FastAPI under uvicorn, a request"

AT_LEAST = 0.99
"""Of the requests that it answers without the library, how many it answers with it."""

LIMITS = dict.fromkeys(IMPLEMENTATIONS, (1 / AT_LEAST, None))

PATHS = ("/executor", "/queue", "/asyncio_queue", "/thread")

CONNECTIONS = 4

LONGER = 100
"""By what factor a turn is longer than that of an operation."""


def measure(
    effort: measuring.Effort, given: Mapping[str, Mapping[str, str]]
) -> tuple[measuring.Row | None, list[str]]:
    """Measure the service, by all implementations; return a row, and the throughputs."""
    figures: dict[tuple[str, bool, str], measuring.Figure] = {}
    notes: list[str] = []
    plain: list[float] = []
    for implementation, environment in given.items():
        with _server(environment) as port:
            values = asyncio.run(_turns(port, effort))
        plain = values.pop(PLAIN)
        for variant, mine in values.items():
            figures[implementation, True, variant] = measuring.ratio(mine, plain)
            throughput = measuring.ratio(plain, mine)
            notes.append(
                f"throughput of the service{_run(implementation)}, {variant}: "
                f"{throughput.median:.3f} ±{throughput.spread:.3f} of plain"
            )
    seconds = statistics.median(plain)
    return measuring.Row(NAME, "second", seconds, figures, LIMITS), notes


def _run(implementation: str) -> str:
    return f" ({implementation})" if implementation in (PURE, COMPILED) else ""


@contextmanager
def _server(environment: Mapping[str, str]) -> Iterator[int]:
    """Run the server; yield its port."""
    with subprocess.Popen(
        [sys.executable, str(measuring.HERE / "served.py")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def _turns(port: int, effort: measuring.Effort) -> dict[str, list[float]]:
    """Return the seconds that a request takes, by variant, of every round."""
    order = [PLAIN, OFFICIAL, OURS, PLAIN_AGAIN]
    values: dict[str, list[float]] = {variant: [] for variant in order}
    for number in range(effort.rounds + 1):
        order.append(order.pop(0))
        for variant in order:
            await _switch(port, variant.partition(",")[0])
            await _ask(port, effort.seconds * LONGER / 5)  # its caches are warm again
            took = await _ask(port, effort.seconds * LONGER)
            if number > 0:
                values[variant].append(took)
    return values


async def _switch(port: int, variant: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _request(reader, writer, f"/switch?to={variant}")
    writer.close()
    await writer.wait_closed()


async def _ask(port: int, seconds: float) -> float:
    """Ask for about so many seconds, on several connections; return seconds for each answer."""
    start = time.perf_counter()
    counts = await asyncio.gather(
        *(_ask_on_one(port, start + seconds, number) for number in range(CONNECTIONS))
    )
    return (time.perf_counter() - start) / sum(counts)


async def _ask_on_one(port: int, until: float, number: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while not count or time.perf_counter() < until:
        await _request(reader, writer, PATHS[(number + count) % len(PATHS)])
        count += 1
    writer.close()
    await writer.wait_closed()
    return count


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status, _, fields = head.decode().partition("\r\n")
    assert " 200 " in status, (path, status)
    length = next(line for line in fields.splitlines() if line.startswith("content-length:"))
    await reader.readexactly(int(length.partition(":")[2]))
