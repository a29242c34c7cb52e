"""``otel-concurrency demo``: what the library does, shown on a program that knows nothing of it.

Runs the order service in two processes under ``opentelemetry-instrument``, without the library and
with it, sends each one order, and draws the traces that each has exported.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from otel_concurrency._cli import CommandError, spans, tree

SETTINGS = "OTEL_PYTHON_CONCURRENCY_"
BAGGAGE = "tenant"
TENANT = "acme"


def add_to(verbs: Any) -> None:
    """Add the verb to the command line's parser."""
    parser = verbs.add_parser(
        "demo",
        help="run an order through a small service, without and with the library",
        description=(
            "Runs a small order service in two processes under opentelemetry-instrument, once "
            "without this library and once with it, sends each an order over HTTP, and prints the "
            f"traces that they exported. Settings in the environment ({SETTINGS}*) and in the "
            "configuration file (OTEL_CONFIG_FILE) apply to the second. The exit status is 0 if "
            "that one has kept its context everywhere, else 1."
        ),
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Run both services and print their traces; raise CommandError if the library lost context."""
    from rich.console import Console

    # It imports asyncio and a client of HTTP, which no other verb needs.
    from otel_concurrency._cli import demo_services

    with tempfile.TemporaryDirectory(prefix="otel-concurrency-") as directory:
        exported_off, exported_on = demo_services.run_both(Path(directory))
    off, on = spans.plant(exported_off.spans), spans.plant(exported_on.spans)

    console = Console(highlight=False, emoji=False)
    glyphs = tree.glyphs_for(console)
    console.print("One order through the same service, run by opentelemetry-instrument:\n")
    tree.show(
        console,
        tree.table("library off", off, _tenant, glyphs),
        tree.table("library on", on, _tenant, glyphs),
    )
    console.print(f"\noff: {_summary(off)}; on: {_summary(on)}")

    if sorted(span.name for span in off.spans) != sorted(span.name for span in on.spans):
        raise CommandError(f"the two services exported different spans.{exported_on.circumstances}")
    lost = [span.name for span in on.spans if span in on.orphans or not _knows_tenant(span)]
    if lost:
        raise CommandError(
            f"with the library on, these spans lost their context: {', '.join(lost)}."
            f"{exported_on.circumstances}"
        )
    return 0


def _summary(forest: spans.Forest) -> str:
    return f"[bold {'red' if forest.orphans else 'green'}]{spans.summary(forest)}[/]"


def _knows_tenant(span: spans.ExportedSpan) -> bool:
    return span.attributes.get(BAGGAGE) == TENANT


def _tenant(span: spans.ExportedSpan) -> tree.Remark:
    known = _knows_tenant(span)
    return (f"{BAGGAGE}={TENANT}", "green") if known else ("baggage lost", "red")
