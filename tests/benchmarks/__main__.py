"""What the hand-off costs: ``python tests/benchmarks`` prints it as one table of ratios.

Every operation is measured as it is (plain), with the hand-off written by hand, with
``opentelemetry-instrumentation-threading``, and with this library, in pure Python and compiled
where there is a compiled part; with a span active, and without any context. The exit status is 1
where a row takes more than its limit; it says which.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import measure
import service
import table
from operations import OPERATIONS


def main() -> int:
    """Measure what the arguments ask for, and print it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds: does it work at all?")
    parser.add_argument(
        "--operation",
        action="append",
        default=[],
        metavar="NAME",
        help="only rows whose name contains NAME; may be given more than once",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values")
    parser.add_argument("--markdown", action="store_true", help="print for a README")
    parser.add_argument(
        "--cpu", action="store_true", help="count CPU time: on a machine that others use"
    )
    arguments = parser.parse_args()

    def wanted(name: str) -> bool:
        return not arguments.operation or any(part in name for part in arguments.operation)

    effort = measure.QUICK if arguments.quick else measure.THOROUGH
    if arguments.cpu:
        effort = dataclasses.replace(effort, clock="cpu")
    with measure.environments() as environments:
        rows: list[measure.Row] = []
        notes: list[str] = []
        if wanted(service.NAME):  # before this process and its children are pinned
            row, said = service.measure(effort, environments)
            rows += [row] if row else []
            notes += said
        core = measure.pin()
        notes = [*table.conditions(core, effort), *notes]
        rows = [
            *(
                measure.measure(operation, effort, environments)
                for name, operation in OPERATIONS.items()
                if wanted(name)
            ),
            *rows,
        ]
        if wanted(measure.START_UP):
            row, said = measure.start_up(effort, environments)
            rows.append(row)
            notes += said
    missed = table.show(rows, notes, markdown=arguments.markdown)
    if arguments.json:
        data = {"notes": notes, "missed": missed, "rows": [row.as_data() for row in rows]}
        arguments.json.write_text(json.dumps(data, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
