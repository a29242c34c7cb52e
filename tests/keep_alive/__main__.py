"""Sends requests to one server after the other: ``python tests/keep_alive --requests 10000``.

Prints for each server how many of its requests have begun in the context of another one, or of
whoever has started the server. With ``--library off`` that is what happens without this library.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from load import load
from processes import installed, serving
from server import LIBRARY


def main():
    """Return how many servers have begun a request in a context that is not its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="to each server")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server", action="append", help="only this one; may be repeated")
    parser.add_argument("--library", choices=LIBRARY, default=LIBRARY[0])
    given = parser.parse_args()
    failed = 0
    for name in given.server or installed():
        began = time.monotonic()
        with serving(name, given.library) as port:
            found = asyncio.run(
                load(
                    port,
                    requests=given.requests,
                    connections=given.connections,
                    seed=given.seed,
                )
            )
        failed += bool(found.wrong)
        print(
            f"{name}: {found.answers} requests over {given.connections} connections in "
            f"{time.monotonic() - began:.0f} s: "
            + (
                ", ".join(f"{count} {fault}" for fault, count in found.wrong.items()) or "all right"
            ),
            flush=True,
        )
        for example in found.examples[:2]:
            print("   ", example)
    return failed


sys.exit(main())
