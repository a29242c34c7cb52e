"""What the hand-off costs: ``python tests/benchmarks`` prints it as one table of ratios.

Every operation is measured as it is (plain), with the hand-off written by hand, with
``opentelemetry-instrumentation-threading``, and with this library; with a span active, and without
any context. Speed is no test: the exit status says only whether it could be measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import measure
import pyperf
import table
from operations import OPERATIONS


def main() -> None:
    """Measure what the arguments ask for, and print it."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds: does it work at all?")
    parser.add_argument(
        "--operation",
        action="append",
        default=[],
        metavar="NAME",
        help="only rows whose name contains NAME; may be given more than once",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values, for pyperf")
    parser.add_argument("--markdown", action="store_true", help="print for docs/cost.md")
    arguments = parser.parse_args()

    def wanted(name: str) -> bool:
        return not arguments.operation or any(part in name for part in arguments.operation)

    effort = measure.QUICK if arguments.quick else measure.THOROUGH
    core = measure.pin()
    chosen = [operation for name, operation in OPERATIONS.items() if wanted(name)]
    results = measure.measure(chosen, effort)
    start_up = measure.start_up(effort) if wanted(table.START_UP) else None
    table.show(results, start_up, table.conditions(core, effort), markdown=arguments.markdown)
    if arguments.json:
        benchmarks = [benchmark for result in results for benchmark in result.benchmarks.values()]
        if start_up is not None:
            benchmarks.append(start_up[0])
        pyperf.BenchmarkSuite(benchmarks).dump(str(arguments.json), replace=True)


if __name__ == "__main__":
    main()
