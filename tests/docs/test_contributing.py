"""The page for contributors: the adapter that it shows works."""

from __future__ import annotations

import subprocess
import sys

from pages import blocks

DEPOT = """
import threading


class Depot:
    def __init__(self):
        self._work = []
        self._has_work = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, work):
        with self._has_work:
            self._work.append(work)
            self._has_work.notify()

    def _run(self):
        while True:
            with self._has_work:
                self._has_work.wait_for(lambda: self._work)
                work = self._work.pop(0)
            work()
"""

PROGRAM = """
import sys, types, threading
from opentelemetry import baggage, context
from otel_concurrency import ConcurrencyInstrumentor, _adapters
import otel_concurrency._adapters as adapters

name = "otel_concurrency._adapters._depot"
sys.modules[name] = module = types.ModuleType(name)
exec(open("_depot.py").read(), vars(module))
adapters.ADAPTERS = {**adapters.ADAPTERS, "depot": {"threading": ("depot",)}}
ConcurrencyInstrumentor().instrument()
import depot

shed, seen, done = depot.Depot(), [], threading.Semaphore(0)


def work():
    seen.append(baggage.get_baggage("tenant"))
    done.release()


for tenant in ("acme", "umbrella"):
    token = context.attach(baggage.set_baggage("tenant", tenant))
    shed.send(work)
    context.detach(token)
shed.send(work)
for _ in range(3):
    assert done.acquire(timeout=20)
print(seen)
"""


def test_the_adapter_of_the_page_carries_context(tmp_path):
    """Written as the page says, for a library of the kind that it describes."""
    (adapter,) = [block for block in blocks("python") if block.page == "contributing"]
    (tmp_path / "_depot.py").write_text(adapter.code, encoding="utf-8")
    (tmp_path / "depot.py").write_text(DEPOT, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("['acme', 'umbrella', None]\n", "")
