"""Reports as they come of runs of programs, made by hand: small, broken, large."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from otel_concurrency._trace_report.model import (
    CallSite,
    HandOff,
    Leak,
    Link,
    Orphan,
    Process,
    Report,
    Span,
    SpanId,
)

STARTED = 1_800_000_000_123_456_789
MS = 1_000_000
PID, WORKER = 4000, 4001


@dataclass
class Maker:
    """Makes one report: spans by ``span``, with the hand-offs that brought them about."""

    library: bool = True
    random: random.Random = field(default_factory=lambda: random.Random(7))
    spans: list[Span] = field(default_factory=list)
    hand_offs: list[HandOff] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    def trace(self):
        """Return a new trace's id."""
        return f"{self.random.getrandbits(128):032x}"

    def span(self, name, start, length, parent=None, *, trace=None, thread="MainThread", **more):
        """Add a span; times are milliseconds after the start, ``length`` None for no end."""
        trace_id = parent.id.trace_id if parent else trace or self.trace()
        made = Span(
            id=SpanId(trace_id, f"{self.random.getrandbits(64):016x}"),
            parent=parent and parent.id,
            name=name,
            start_ns=STARTED + round(start * MS),
            end_ns=None if length is None else STARTED + round((start + length) * MS),
            thread=thread,
            **{"pid": PID, "site": f"/srv/shop/orders.py:{20 + len(name) * 3}", **more},
        )
        self.spans.append(made)
        return made

    def hand_off(self, call, site, origin, at, wait, thread, **more):
        """Add a hand-off out of ``origin``, and return its id."""
        primitive = more.pop("primitive", "futures")
        made = HandOff(
            id=f"{PID}-{next(self.numbers)}",
            primitive=primitive,
            call=call,
            site=f"/srv/shop/{site}",
            at_ns=STARTED + round(at * MS),
            pid=origin.pid,
            thread=origin.thread,
            policy="parent" if self.library else "off",
            origin=origin.id,
            carried=self.library,
            attached_ns=None if wait is None else STARTED + round((at + wait) * MS),
            to_pid=more.get("pid", PID),
            to_thread=thread,
        )
        self.hand_offs.append(made)
        return made.id

    def work(self, name, call, site, origin, at, wait, length, thread, **more):
        """Add a hand-off, and the span that the work starts: an orphan without the library."""
        primitive = more.pop("primitive", "futures")
        hand_off = self.hand_off(
            call, site, origin, at, wait, thread, primitive=primitive, pid=more.get("pid", PID)
        )
        parent = origin if self.library else None
        made = self.span(name, at + wait, length, parent, thread=thread, hand_off=hand_off, **more)
        if not self.library:
            self.orphan(made, origin, primitive, call, f"/srv/shop/{site}")
        return made

    def orphan(self, span, origin, primitive, call, site):
        """Say that ``span`` has lost ``origin``."""
        self.orphans.append(
            Orphan(
                span=span.id,
                reason="primitive_off",
                words=f"“{span.name}” was handed off inside “{origin.name}” by {call} at {site}, "
                f"and {primitive.upper()} is off.",
                advice=f"Set OTEL_PYTHON_CONCURRENCY_{primitive.upper()}=parent.",
                site=site,
                origin=origin.id,
            )
        )

    def report(self, command=("python", "-m", "uvicorn", "orders:app"), **more):
        """Return all of it."""
        ends = [span.end_ns or 0 for span in self.spans]
        return Report(
            command=command,
            library=self.library,
            exit_status=0,
            started_ns=STARTED,
            ended_ns=max([*ends, STARTED + MS]) + 5 * MS,
            processes=(
                Process(PID, None, " ".join(command), STARTED),
                Process(WORKER, PID, "ForkPoolWorker-1", STARTED + 8 * MS, STARTED + 90 * MS),
            ),
            spans=tuple(self.spans),
            hand_offs=tuple(self.hand_offs),
            orphans=tuple(self.orphans),
            leaks=tuple(self.leaks),
            call_sites=tuple(self.call_sites()),
            **more,
        )

    def call_sites(self):
        """Yield a row for each line that hands off."""
        key = lambda each: (each.primitive, each.call, each.site)  # noqa: E731
        for (primitive, call, site), group in itertools.groupby(
            sorted(self.hand_offs, key=key), key
        ):
            each = list(group)
            waits = sorted(one.waited_ns for one in each if one.waited_ns is not None)
            yield CallSite(
                primitive,
                call,
                site,
                len(each),
                sum(one.carried for one in each),
                waits[len(waits) // 2] if waits else None,
                waits[len(waits) * 95 // 100] if waits else None,
                waits[-1] if waits else None,
            )


def order(make, number, start):
    """Add one request of the order service, with all that follows from it."""
    about = {"order.id": f"A-{1000 + number}", "tenant": "acme" if number % 3 else "umbrella"}
    loop = f"Task-{number + 2}"
    post = make.span("POST /orders", start, 46, kind="SERVER", task=loop, attributes=about)
    paid = make.span("validate_payment", start + 1, 40, post, task=loop)
    for item in range(3):
        make.work(
            "reserve_stock", "ThreadPoolExecutor.submit", "orders.py:58", paid,
            start + 2 + item * 0.3, 1 + item * 2, 11, f"warehouse_{item}",
            attributes={"item": f"SKU-{item}"},
        )  # fmt: skip
    make.work(
        "quote_shipping", "loop.run_in_executor", "orders.py:66", paid,
        start + 3, 0.4, 20, "asyncio_0", primitive="asyncio",
    )  # fmt: skip
    fulfil = make.work(
        "fulfil", "ThreadPoolExecutor.submit", "orders.py:71", paid,
        start + 24, 2.5, 30, "warehouse_3",
    )  # fmt: skip
    make.span("print_label", start + 40, 12, fulfil, thread="warehouse_3")
    make.work(
        "render_invoice", "ProcessPoolExecutor.submit", "invoices.py:12", fulfil,
        start + 28, 9, 17, "MainThread", primitive="multiprocessing", pid=WORKER,
    )  # fmt: skip
    make.work(
        "notify", "Thread.start", "orders.py:74", paid,
        start + 25, 0.2, 15, f"Thread-{number + 3}", primitive="threading",
    )  # fmt: skip
    make.work(
        "send_receipt", "Queue.put", "orders.py:80", paid,
        start + 26, 14, 32, "receipts", primitive="queue",
    )  # fmt: skip
    make.hand_off("Queue.put", "audit.py:9", paid, start + 30, None, None, primitive="queue")
    return make.work(
        "follow_up", "Timer.start", "orders.py:77", paid,
        start + 27, 60, 5, f"Thread-{number + 4}", primitive="threading",
    )  # fmt: skip


def order_service(requests=5, library=True):
    """Return the order service under load, all right or without the library."""
    make = Maker(library)
    for number in range(requests):
        follow_up = order(make, number, 4 + number * 17)
        if library:
            link = Link(follow_up.id, "periodic", "threading")
            at = follow_up.end_ns - STARTED
            make.span("reminder", at / MS + 20, 4, thread=f"Thread-{number + 9}", links=(link,))
    return make.report()


def broken():
    """Return a run in which most goes well: an orphan, two leaks, a span that did not end."""
    make = Maker()
    order(make, 0, 4)
    get = make.span("GET /stock", 20, 30, kind="SERVER", status="ERROR")
    polled = make.span("poll_supplier", 35, 40, thread="poller", site="/srv/shop/poller.py:30")
    make.orphans.append(
        Orphan(
            polled.id,
            "unknown_thread",
            "Thread “poller” was started at /srv/shop/poller.py:12 inside span “GET /stock” by a "
            "_thread.start_new_thread that was bound before the library was switched on.",
            "Run the program by opentelemetry-instrument, or start a threading.Thread.",
            "/srv/shop/poller.py:12",
            get.id,
        )
    )
    make.span("stream_prices", 40, None, get, thread="prices")
    late = make.span("cleanup", 130, 3, get, thread="warehouse_1")
    make.leaks.append(
        Leak(
            "ended_parent",
            "“cleanup” was started under “GET /stock”, which had ended 80 ms before.",
            "Detach what was attached at /srv/shop/orders.py:91 when the work is done.",
            "/srv/shop/orders.py:91",
            late.id,
        )
    )
    make.leaks.append(
        Leak(
            "not_exported",
            "Process 4001 left by os._exit with 3 spans that were not exported.",
            "Flush the provider before os._exit, or leave by sys.exit.",
            "/srv/shop/workers.py:77",
            count=3,
        )
    )
    return make.report(command=("python", "broken.py"))


def wrong_parents():
    """Return a run with a span under a parent of other work, links between traces, and a batch."""
    make = Maker()
    first = make.span("GET /reports", 0, 20, kind="SERVER", thread="uvicorn-worker-thread-1")
    make.span("read_cache", 2, 6, first)
    wrong = make.span("GET /health", 60, 9, first, kind="SERVER", thread="uvicorn-worker-thread-1")
    make.leaks.append(
        Leak(
            "left_with_connection",
            "“GET /health” became a child of “GET /reports”, which had left its context with the "
            "connection.",
            "Resume reading outside of the span, at /srv/shop/server.py:12.",
            "/srv/shop/server.py:12",
            wrong.id,
        )
    )
    jobs = [make.span(f"enqueue {number}", 5 + number * 4, 3) for number in range(12)]
    links = tuple(Link(job.id, "batch", "queue") for job in jobs)
    make.span("write_batch", 70, 15, thread="writer", links=links)
    again = make.span("sweep", 90, 5, thread="Thread-7", links=(Link(jobs[0].id, "periodic"),))
    make.span("sweep", 110, 5, thread="Thread-8", links=(Link(again.id, "periodic", "threading"),))
    return make.report(command=("python", "wrong.py"))


def large(spans=100_000):
    """Return a run of as many spans: one trace of half of them, the rest in small ones."""
    make = Maker()
    root = make.span("import catalogue", 0, 60_000, attributes={"rows": 50_000})
    batches = [make.span(f"batch {n}", n * 600, 590, root) for n in range(100)]
    for number in range(spans // 2 - len(batches) - 1):
        batch = batches[number % 100]
        start = (batch.start_ns - STARTED) / MS + (number // 100) * 1.1
        name = "import_row" if number != 31_337 else "the needle"
        make.work(
            name, "ThreadPoolExecutor.submit", "importer.py:33", batch,
            start, 0.4, 0.7, f"importer_{number % 8}", attributes={"row": number},
        )  # fmt: skip
    while len(make.spans) < spans:
        number = len(make.spans)
        root = make.span("GET /stock", number * 0.5, 9, attributes={"request": number})
        for each in range(min(4, spans - len(make.spans))):
            make.span("query", number * 0.5 + 2 * each, 1.5, root, thread=f"db_{each}")
    return make.report(command=("python", "importer.py"))
