"""Loads all primitives at once for minutes, and checks every single span.

``python tests/soak`` takes ten minutes, ``--minutes`` as many as one likes. Hundreds of threads and
tasks hand work to each other, with exceptions, cancellations, shut-downs and forks in between. At
the end of each round nothing is under way, and the process is to hold what it held after the first.
Exit status 1: a span has another parent than was intended, a result is wrong or lost, or something
has grown. ``--off PRIMITIVE`` shows that it would be noticed.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import processes
from ledger import INTENDED, LEDGER, LINKED, RETURN, TRACER, WAYS, Job, hand_off
from opentelemetry import trace
from resources import Held, held
from rich.console import Console
from rich.table import Table
from stations import BLOCKING, FATES, NATIVE, Stations, a_context, quiet_failures

from otel_concurrency import ConcurrencyInstrumentor
from recorded import record

DRIVERS = 60
AT_ONCE = 400
"""How many jobs may be under way before nobody hands off any more."""

ROUNDS = 6
HANG = 300
"""Seconds that a round may last longer than it is meant to, before all stacks are printed."""

NESTED = [kind for kind in FATES if kind not in BLOCKING]


class Driver:
    """Generates load, of which every choice follows from the seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def run(self, ended: threading.Event) -> None:
        """Hand work off until the round ends."""
        while not ended.is_set():
            with self._origin() as span:
                for _ in range(self._random.randint(1, 8)):
                    hand_off(self._job([*FATES], 0), span)
            while LEDGER.waiting() > AT_ONCE and not ended.is_set():
                time.sleep(0.002)

    def _job(self, kinds: list[str], depth: int) -> Job:
        kind = self._random.choice(kinds)
        fate = RETURN
        if FATES[kind] and self._random.random() < 0.3:
            fate = self._random.choice(FATES[kind])
        count = self._random.choice((0, 0, 0, 1, 2)) if depth < 3 else 0
        if kind.endswith("rounds"):
            count = 0
        return Job(kind, fate, tuple(self._job(NESTED, depth + 1) for _ in range(count)))

    @contextmanager
    def _origin(self) -> Iterator[trace.Span | None]:
        """Be in a span, an ended one, one in another, in none, or where there is baggage alone."""
        choice = self._random.random()
        if choice < 0.1:
            with a_context() if choice < 0.05 else nullcontext():
                yield None
            return
        LEDGER.hand("request")
        with TRACER.start_as_current_span(
            "request", attributes={INTENDED: 0}, end_on_exit=False
        ) as span:
            if choice < 0.2:
                LEDGER.hand("inner")
                intended = {INTENDED: span.get_span_context().span_id}
                with TRACER.start_as_current_span("inner", attributes=intended) as inner:
                    yield inner
            elif choice < 0.3:
                span.end()
                yield span
                return
            else:
                yield span
        span.end()


def play(seconds: float, seed: str, with_processes: bool) -> None:
    """Generate load for some seconds, and wait until all of it is done."""
    faulthandler.dump_traceback_later(seconds + HANG, exit=True)
    stations = Stations(random.Random(seed), WAYS)
    ended = threading.Event()
    targets = [Driver(f"{seed} {number}").run for number in range(DRIVERS)]
    threads = [threading.Thread(target=target, args=(ended,)) for target in targets]
    if with_processes:
        for method in processes.METHODS:
            crossing = processes.Crossing(method, random.Random(f"{seed} {method}"), ended)
            threads.append(threading.Thread(target=crossing.run))
        for way in (processes.fork, processes.command, processes.many_interpreters):
            threads.append(threading.Thread(target=_again, args=(way, seed, ended)))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    LEDGER.settle(60)
    LEDGER.give_up()
    stations.close()
    WAYS.clear()
    faulthandler.cancel_dump_traceback_later()


def _again(way: object, seed: str, ended: threading.Event) -> None:
    """Do something again and again, at least once."""
    assert callable(way)
    chance = random.Random(f"{seed} {way.__name__}")
    while True:
        try:
            way(chance)
        except Exception as error:
            LEDGER.mistake(way.__name__, repr(error))
        if ended.wait(chance.uniform(0, processes.REST)):
            return


def show(console: Console, before: list[Held], after: list[Held]) -> bool:
    """Print both tables; return whether all is well."""
    table = Table(title="spans")
    for column in ("kind", "checked", "wrong"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind in sorted({*LEDGER.ended, *LEDGER.wrong}):
        table.add_row(kind, f"{LEDGER.ended[kind]:,}", _red(LEDGER.wrong[kind]))
    wrong = LEDGER.wrong.total() if hasattr(Counter, "total") else sum(LEDGER.wrong.values())
    table.add_section()
    table.add_row("all", f"{sum(LEDGER.ended.values()):,}", _red(wrong))
    console.print(table)

    table = Table(title="what the process holds")
    for column in ("", "after the first round", "after the last", ""):
        table.add_column(column, justify="right" if column else "left")
    grown = 0
    for one, other in zip(before, after, strict=True):
        more = other.count - one.count > one.tolerance
        grown += more
        counts = [f"{held.count:,} {held.unit}".strip() for held in (one, other)]
        table.add_row(one.what, *counts, "[red]grown[/]" if more else "")
    console.print(table)
    for told in LEDGER.told:
        console.print(f"[red]{told}[/]")
    return not (wrong or grown)


def _red(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "0"


def main() -> int:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python tests/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1_000_000)))
    parser.add_argument("--policy", choices=("parent", "link"), default="parent")
    parser.add_argument("--off", metavar="PRIMITIVE", help="switch one off, and see what is wrong")
    parser.add_argument("--threads-only", action="store_true", help="start no processes")
    parser.add_argument(
        "--record", action="store_true", help="keep the number of spans, for docs/proofs.md"
    )
    arguments = parser.parse_args()

    console = Console(highlight=False)
    console.print(
        f"Python {sys.version.split()[0]}, {arguments.minutes:g} minutes, "
        f"policy {arguments.policy}, seed {arguments.seed}"
    )
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: it is the point
    # A machine that others use may have work wait for minutes.
    settings: dict[str, Any] = {"policy": arguments.policy, "link_after": 0}
    settings["subprocess"] = arguments.policy
    if arguments.off:
        settings[arguments.off] = "off"
    if arguments.policy == "link":
        LINKED.update({*FATES} - NATIVE, processes.KINDS, ("subprocess", "fork"))
    ConcurrencyInstrumentor().instrument(**settings)
    seconds = arguments.minutes * 60 / ROUNDS
    started = time.monotonic()
    with quiet_failures():
        for number in range(ROUNDS):
            play(seconds, f"{arguments.seed} {number}", not arguments.threads_only)
            after = held()
            if not number:
                before = after
            took = time.monotonic() - started
            counts = ", ".join(f"{one.what} {one.count:,}" for one in after)
            console.print(
                f"{took:5.0f} s: {sum(LEDGER.ended.values()):,} spans; {counts}", soft_wrap=True
            )
    ConcurrencyInstrumentor().uninstrument()
    well = show(console, before, after)
    if well and arguments.record:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        spans = sum(LEDGER.ended.values())
        record("soak", version, {"minutes": arguments.minutes, "spans": spans})
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
