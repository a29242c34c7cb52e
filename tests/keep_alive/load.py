"""Requests over connections that are kept open, pipelined, with bodies from a byte to a megabyte.

Each says in its headers whose child it is, or does not; what comes back tells in which context the
server has begun it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field

WAIT = 60
"""Seconds after which an answer will not come any more."""

_SIZES = (1, 100, 2_000, 70_000, 300_000, 1_000_000)
_WEIGHTS = (40, 40, 10, 6, 3, 1)
_DEEPEST = 8


@dataclass
class Findings:
    """What has come back."""

    answers: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def judge(self, number, path, sent, size, answer):
        """Compare an answer to what was sent."""
        self.answers += 1
        assert answer["path"] == path, "an answer to another request"
        assert answer["received"] == size, "a body has not arrived"
        found = {
            "began in a span": answer["current"] is not None,
            "began with another's baggage": answer["tenant"] is not None,
            "is the child of another": answer.get("parent", sent) != sent,
        }
        for fault, applies in found.items():
            if applies:
                self.wrong[fault] += 1
                self.examples.append(f"{number} {path}: {fault}: {answer}, sent {sent}")


async def load(port, *, requests, connections, seed=0, kinds=("spans", "plain")):
    """Send requests over connections, as many on each; return the findings."""
    findings = Findings()
    share = requests // connections
    await asyncio.gather(
        *(
            _Connection(port, number, random.Random(f"{seed}-{number}"), kinds).use(share, findings)
            for number in range(connections)
        )
    )
    return findings


class _Connection:
    def __init__(self, port, number, chance, kinds):
        self._port, self._number, self._chance, self._kinds = port, number, chance, kinds

    async def use(self, count, findings):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            sent = 0
            while sent < count:
                several = [self._request() for _ in range(min(self._depth(), count - sent))]
                sent += len(several)
                writing = asyncio.ensure_future(self._write(writer, several))
                for path, parent, size in several:
                    answer = await asyncio.wait_for(_answer(reader), WAIT)
                    findings.judge(self._number, path, parent, size, answer)
                await writing
        finally:
            writer.close()

    def _depth(self):
        return self._chance.choice((1, self._chance.randint(2, _DEEPEST)))

    def _request(self):
        chance = self._chance
        path = f"/{chance.choice(self._kinds)}/{self._number}/{chance.getrandbits(32):08x}"
        parent = f"{chance.getrandbits(64) or 1:016x}" if chance.random() < 0.5 else None
        return path, parent, chance.choices(_SIZES, _WEIGHTS)[0]

    async def _write(self, writer, several):
        for path, parent, size in several:
            head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {size}"]
            if parent is not None:
                trace = f"{self._chance.getrandbits(128) or 1:032x}"
                head.append(f"traceparent: 00-{trace}-{parent}-01")
            writer.write("\r\n".join([*head, "", ""]).encode() + bytes(size))
            await writer.drain()


async def _answer(reader):
    status = await reader.readline()
    assert b" 200 " in status, status
    length = 0
    while (line := await reader.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(await reader.readexactly(length))
