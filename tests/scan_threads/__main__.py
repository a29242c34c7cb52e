"""Which threads and tasks of the installed libraries start clean, and which are in no table.

``python tests/scan_threads``                       all distributions of this environment
``python tests/scan_threads redis kombu``           these
``python tests/scan_threads --all``                 what is in the tables, too
``python tests/scan_threads --path site-packages``  of another environment, which needs not run

What is found is a list to read, in each library's source, and no list of entries: a thread that
makes one call for a caller who waits for it is a part of the request (see the tables in
``otel_concurrency._clean_starts``). Only what has a loop of its own is shown; ``--short`` shows the
rest, too.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from otel_concurrency._clean_starts.functions import FLOWS, ROUNDS, SOURCES
from otel_concurrency._clean_starts.matching import name_matcher
from otel_concurrency._clean_starts.table import TABLE
from otel_concurrency._clean_starts.tasks import TASKS
from scan_threads.source import Module, Start, parse, starts_of

NOT_SHIPPED = {"test", "tests", "testing", "examples", "docs", "benchmarks", "_vendor", "vendor"}

_is_named = name_matcher(
    (
        *TABLE,
        *(
            f"{module}.{name}"
            for table in (FLOWS, ROUNDS, SOURCES, TASKS)
            for module in table
            for name in table[module]
        ),
    )
)


def is_known(start: Start) -> bool:
    """Whether a table names what is started, or something that it is below."""
    return _is_named(start.name)


def modules_of(distribution: metadata.Distribution) -> list[Module]:
    """Return the modules of a distribution that have something to do with threads or tasks."""
    found = []
    for file in distribution.files or ():
        if file.suffix != ".py" or NOT_SHIPPED.intersection(file.parts[:-1]):
            continue
        path = Path(str(file.locate()))
        parts = file.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        module = parse(path, name)
        if module is not None:
            found.append(module)
    return found


def distributions(names: list[str], path: str | None) -> Iterator[metadata.Distribution]:
    """Yield the distributions by these names, or all, of this environment or of another's."""
    where = {} if path is None else {"path": [path]}
    wanted = {_plain(name) for name in names}
    for distribution in metadata.distributions(**where):
        if not wanted or _plain(distribution.name) in wanted:
            yield distribution


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def main(arguments: list[str] | None = None) -> None:
    """Print what is found, one line each."""
    parser = argparse.ArgumentParser(prog="python tests/scan_threads", description=__doc__)
    parser.add_argument("distributions", nargs="*")
    parser.add_argument("--all", action="store_true", help="what is in the tables, too")
    parser.add_argument("--short", action="store_true", help="what has no loop of its own, too")
    parser.add_argument("--path", help="the site-packages of another environment")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", SyntaxWarning)  # other people's
    unknown = known = 0
    for distribution in distributions(options.distributions, options.path):
        for module, start in starts_of(modules_of(distribution)):
            if start.loops is not True and not options.short:
                continue
            in_table = is_known(start)
            known, unknown = known + in_table, unknown + (not in_table)
            if options.all or not in_table:
                state = "in a table" if in_table else "in no table"
                where = f"{module.name}:{start.line}"
                name = f"{distribution.name} {distribution.version}"
                print(f"{name}  {start.kind}  {start.name}  ({where})  {state}")
    print(f"{known} in a table, {unknown} in no table")


if __name__ == "__main__":
    main()
