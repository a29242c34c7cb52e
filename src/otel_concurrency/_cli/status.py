"""``otel-concurrency status``: what the library patches, and what it cannot patch.

Without a program it shows what would be patched in this environment; with one, what was patched in
that program, when it has ended; with the number of a process, what is patched there now.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from otel_concurrency._cli import CommandError, attaching, running, scratch
from otel_concurrency._observer import live

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ANY_WIDTH = 10_000
"""More columns than any table needs."""

_GOOD, _BAD, _QUIET = "green", "bold red", "dim"


def add_to(verbs: Any) -> None:
    """Add the verb to the command line's parser."""
    parser = verbs.add_parser(
        "status",
        usage="%(prog)s [--json] [--pid PID | -- program [arguments ...]]",
        help="show what is patched, by which setting, and what is not",
        description=(
            "Shows versions, which primitives are patched under which policy and where that was "
            "set, what could not be patched and why, and which other libraries patch the same. "
            "With a program: runs it as opentelemetry-instrument would, and shows the same about "
            "it when it has ended. With --pid: shows how things stand in a running process, and "
            "changes nothing there. The exit status is the program's; 1 where that is 0 and a "
            "primitive that is on could not be patched; 2 where the process cannot be looked into."
        ),
    )
    attaching.add_to(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Find out, and print it; return the exit status."""
    from rich.console import Console

    from otel_concurrency._status import snapshot

    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    exit_status = 0
    attaching.check(arguments)
    if arguments.pid is not None:
        if command:
            arguments.parser.error("either a program or --pid, not both")
        request = {"what": live.STATUS}
        state = attaching.answer_of(arguments.pid, request, arguments.wait)[live.STATUS]
    elif command:
        exit_status, state = _run(command)
    else:
        state = snapshot.state_if_switched_on()
    console = Console(highlight=False, emoji=False, markup=False)
    if arguments.json:
        console.out(json.dumps(state, indent=2), highlight=False)
    else:
        _show(console, state, _headline(state, ran=bool(command), pid=arguments.pid))
    failed = any(each["failures"] for each in (*state["primitives"], *state["adapters"]))
    return exit_status or int(failed)


def _run(command: list[str]) -> tuple[int, dict[str, Any]]:
    from otel_concurrency._observer import start

    with scratch.directory() as directory:
        file = directory / "status"
        exit_status = running.run(command, start.environment_for_status(file), lambda: None)
        left = file.read_text(encoding="utf-8") if file.exists() else ""
    if not left:
        raise CommandError(
            f"the program ended with exit status {exit_status} and did not write its state: is "
            "otel-concurrency installed where it runs, and did it end by itself?",
            exit_status or 1,
        )
    return exit_status, json.loads(left)


def _show(console: Console, state: Mapping[str, Any], headline: str) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    versions = (f"{name} {found or 'is missing'}" for name, found in state["versions"].items())
    console.print(Text(", ".join((state["python"], *versions)), _QUIET))
    console.print(Text(_hot_path(state), _QUIET))
    console.print(Text(headline, _GOOD if state["on"] else _BAD))
    console.print()

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("primitive", "policy", "set by"):
        table.add_column(heading, no_wrap=True)
    table.add_column("state", overflow="fold")
    for primitive in state["primitives"]:
        words, style = _condition(primitive)
        table.add_row(
            primitive["name"],
            Text(primitive["policy"], _QUIET if primitive["policy"] == "off" else ""),
            Text(primitive["set_by"] or "default", "" if primitive["set_by"] else _QUIET),
            Text(words, style),
        )
    for setting in state["settings"]:
        if setting["set_by"]:
            table.add_row(setting["name"], setting["value"], setting["set_by"], "")
    _print(console, table)

    libraries = [each for each in state["adapters"] if each["version"] or each["patched"]]
    if libraries:
        console.print()
        _print(console, _table_of(libraries))

    for heading, lines in _sections(state):
        console.print()
        console.print(Text(heading, "bold"))
        for line in lines:
            if console.is_terminal:  # which would break the line inside a word
                console.print(Padding(Text(line), (0, 0, 0, 2)))
            else:
                console.print(Text(f"  {line}"), soft_wrap=True)


def _print(console: Console, table: Table) -> None:
    """Print ``table``; its last column stands below the others where that would break a word."""
    from rich.padding import Padding
    from rich.text import Text

    least = table.__rich_measure__(console, console.options.update(max_width=_ANY_WIDTH)).minimum
    if least <= console.width:
        console.print(table)
        return
    *others, last = (list(column.cells) for column in table.columns)
    headings = [str(column.header) for column in table.columns[:-1]]
    widths = [
        max(len(heading), *(len(str(cell)) for cell in cells))
        for heading, cells in zip(headings, others, strict=True)
    ]
    for row, state in [(headings, None), *zip(zip(*others, strict=True), last, strict=True)]:
        line = Text("  ").join(
            Text.assemble(cell, " " * (width - len(str(cell))))
            for cell, width in zip(row, widths, strict=True)
        )
        line.rstrip()
        console.print(line, style="bold" if state is None else "")
        if state:
            console.print(Padding(state, (0, 0, 0, 4)))


def _table_of(libraries: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("library", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("state", overflow="fold")
    for library in libraries:
        if not library["on"]:
            words, style = f"not patched ({library['set_by'] or 'the library is off'})", _QUIET
        elif library["failures"]:
            words, style = "could not be patched", _BAD
        elif library["patched"]:
            words, style = f"patched ({', '.join(library['patched'])})", _GOOD
        else:
            words, style = "will be patched when it is imported", _QUIET
        table.add_row(library["name"], library["version"] or "", Text(words, style))
    return table


def _headline(state: Mapping[str, Any], *, ran: bool, pid: int | None) -> str:
    if state["disabled_by_file"]:
        return "The library is off, by the configuration file (enabled: false)."
    on = "on" if state["on"] else "off"
    if pid is not None:
        words = f"The library is {on} in process {pid}."
    elif ran:
        words = f"The library was {on}."
    elif state["on"]:
        return "In a program that runs here, with these settings:"
    else:
        return "The library cannot be switched on here."
    if not _exports(state):
        return f"{words} No tracer provider is configured here: nothing is exported."
    is_known = state["on"] and state["provider"] is not None
    return f"{words} Tracer provider: {state['provider']}." if is_known else words


def _hot_path(state: Mapping[str, Any]) -> str:
    if state["compiled"]:
        return "Hand-offs run the compiled part."
    return f"Hand-offs run in pure Python: {state['why_not_compiled']}."


def _exports(state: Mapping[str, Any]) -> bool:
    """Whether there is a tracer provider, or an exporter of spans in one that is not global."""
    traces = [each for each in state["exporters"] if each["signal"] == "traces"]
    return state["provider"] is not None or any(each["exporters"] for each in traces)


def _condition(primitive: Mapping[str, Any]) -> tuple[str, str]:
    if primitive["policy"] == "off":
        return "not patched", _QUIET
    failed = ", ".join(primitive["failures"])
    waiting = ", ".join(primitive["not_imported"])
    if not (primitive["patched"] or failed):
        return f"will be patched when it is imported ({waiting})", _QUIET
    phrases = {
        "patched (%s)": ", ".join(primitive["patched"]),
        "could not be patched (%s)": failed,
        "not imported: %s": waiting,
    }
    words = "; ".join(phrase % modules for phrase, modules in phrases.items() if modules)
    return words, _BAD if failed else _GOOD


def _sections(state: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    primitives: list[Mapping[str, Any]] = state["primitives"]
    each_of_all = [*primitives, *state["adapters"]]
    failures = [
        f"{each['name']}: {module} cannot be patched: {why}"
        for each in each_of_all
        for module, why in each["failures"].items()
    ]
    if failures:
        yield "Could not be patched", failures
    remarks = [f"{each['name']}: {remark}" for each in each_of_all for remark in each["remarks"]]
    if remarks:
        yield "Notes", remarks
    if state["exporters"]:
        yield "Providers and exporters", [_provider(each) for each in state["exporters"]]
    if state["export"]:
        yield "Export", list(state["export"])
    if state["warnings"]:
        yield "Warnings", list(state["warnings"])
    found: list[Mapping[str, Any]] = state["neighbours"]
    if found:
        yield "Neighbours", [_neighbour(each) for each in found]
    names = {each["name"] for each in found}
    others = [name for name in state["installed"] if name not in names]
    if others:
        yield "Installed, and not imported", [", ".join(others)]


def _provider(provider: Mapping[str, Any]) -> str:
    exporters = ", ".join(provider["exporters"]) or "no exporter was found"
    return f"{provider['signal']}: {provider['provider']}: {exporters}"


def _neighbour(neighbour: Mapping[str, Any]) -> str:
    active = {True: " (active)", False: " (imported, not active)", None: ""}[neighbour["active"]]
    if neighbour["set_aside"]:
        active = " (set aside)"
    return f"{neighbour['name']}{active}: {neighbour['changes']}"
