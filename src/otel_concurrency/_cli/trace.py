"""``otel-concurrency trace``: shows where a program loses its context.

Runs the program with every process of it observed, and reports what was seen: its traces, the
hand-offs in them, and what has come off. With ``--pid`` it observes a process that runs already.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_concurrency._cli import CommandError, attaching, running, say, scratch
from otel_concurrency._cli.report import counted

if TYPE_CHECKING:
    from otel_concurrency._trace_report.analysis import Collection
    from otel_concurrency._trace_report.model import Report

_FAULTS = ("orphans", "leaks")

_NOTHING_SEEN = 3
"""The exit status where --fail-on has nothing to look at."""

_SECONDS = 30.0
"""How long a running process is observed by default."""

_SOON = 1.0
"""Seconds within which a second Ctrl-C ends all that --compare runs."""

_BETWEEN_COUNTS = 5.0
"""Seconds between two lines of counts, of a program that runs long."""

_COUNTED = {
    "traces": "trace",
    "spans": "span",
    "hand_offs": "hand-off",
    "orphans": "orphan",
    "leaks": "leak",
}


def add_to(verbs: Any) -> None:
    """Add the verb to the command line's parser."""
    parser = verbs.add_parser(
        "trace",
        usage="%(prog)s [options] (--pid PID | [--] program [arguments ...])",
        help="run a program and show where its context goes, and where it is lost",
        description=(
            "Runs a program as opentelemetry-instrument would, and shows its traces: which line "
            "handed work to which thread, task or process, how long it waited there, where a span "
            "lost its parent and why, and where a context outlived its work. No exporter is "
            "needed; those that the program configures stay. Ctrl-C ends the program, which is "
            "reported nevertheless. The exit status is the program's; 1 where that is 0 and "
            "something was found that --fail-on names, and 3 where no span was started. With "
            "--pid: observes a process that runs already, until --seconds are over or Ctrl-C, and "
            "leaves it as it was; the exit status is 2 where it cannot be looked into."
        ),
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--off", action="store_true", help="keep this library off")
    which.add_argument(
        "--compare",
        action="store_true",
        help="run the program twice, first with this library off; the exit status is that with it",
    )
    attaching.add_to(parser)
    parser.add_argument(
        "--seconds",
        metavar="SECONDS",
        type=attaching.seconds,
        help=f"how long to observe the process of --pid (default: {_SECONDS:g})",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as a page")
    parser.add_argument(
        "--fail-on",
        metavar="WHAT",
        type=_faults,
        default=(),
        help="orphans, leaks, or both with a comma between: exit with status 1 if there are any",
    )
    parser.add_argument(
        "--limit",
        metavar="SPANS",
        type=_positive,
        help="how many spans to keep; what is beyond is counted",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)


def _faults(text: str) -> tuple[str, ...]:
    faults = tuple(word.strip().lower() for word in text.split(",") if word.strip())
    unknown = [word for word in faults if word not in _FAULTS]
    if unknown or not faults:
        raise argparse.ArgumentTypeError(
            f"expected {' or '.join(_FAULTS)}, or both with a comma between them, got {text!r}"
        )
    return faults


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the program, print the report and write the files; return the exit status."""
    from rich.console import Console

    from otel_concurrency._cli import report as terminal

    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    attaching.check(arguments, "seconds")
    if arguments.pid is not None:
        if command or arguments.off or arguments.compare:
            arguments.parser.error("--pid goes with no program, and not with --off or --compare")
    elif not command:
        arguments.parser.error("no program to run was given")
    for file in (arguments.json, arguments.html):
        if file is not None:
            _check(file)

    output: Any = sys.stdout
    if isinstance(output, io.TextIOWrapper):  # names of the program's may hold anything
        output.reconfigure(errors="backslashreplace")
    reports: dict[str, Report] = {}
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=False)
    interrupts = _Interrupts()
    if arguments.pid is not None:
        report = _observe_running(
            arguments.pid, arguments.seconds or _SECONDS, wait=arguments.wait, limit=arguments.limit
        )
        terminal.show(console, report)
        return _finish({"on" if report.library else "off": report}, arguments)
    for number, library in enumerate((False, True) if arguments.compare else (not arguments.off,)):
        if interrupts.ends_all:
            say("Ctrl-C came twice within a second: the program is not run again")
            break
        if arguments.compare:
            with_it = "with" if library else "without"
            say(
                f"run {number + 1} of 2, {with_it} the library: {shlex.join(command)} "
                "(it ends by itself, or by Ctrl-C)"
            )
        report = _observe(command, interrupts, library=library, limit=arguments.limit)
        terminal.show(console, report)
        reports["on" if library else "off"] = report
    if len(reports) > 1:
        terminal.show_comparison(console, reports["off"], reports["on"])
    return _finish(reports, arguments)


def _finish(reports: Mapping[str, Report], arguments: argparse.Namespace) -> int:
    """Write the files, and return the exit status."""
    _write(reports, arguments.json, arguments.html)

    *_, last = reports.values()
    if arguments.fail_on and not last.spans:
        say("failed, since no span was started")
        return last.exit_status or _NOTHING_SEEN
    found = [each for each in arguments.fail_on if getattr(last, each)]
    if found:
        counts = " and ".join(counted(len(getattr(last, each)), each[:-1]) for each in found)
        say(f"failed on {counts}")
    return last.exit_status or (1 if found else 0)


class _Interrupts:
    """Two Ctrl-C within a second end all; one ends the run that it comes in."""

    def __init__(self) -> None:
        self._last = -math.inf
        self.ends_all = False

    def __call__(self) -> None:
        now = time.monotonic()
        self.ends_all = self.ends_all or now - self._last <= _SOON
        self._last = now


def _observe(
    command: list[str], interrupts: _Interrupts, *, library: bool, limit: int | None
) -> Report:
    from otel_concurrency._observer import start, wire
    from otel_concurrency._trace_report import analysis

    collection = analysis.Collection() if limit is None else analysis.Collection(limit=limit)
    with scratch.directory() as directory:
        reader = wire.Reader(directory)
        counts = _Counts(collection) if sys.stderr.isatty() else None

        def meanwhile() -> None:
            reader.read(collection.feed)
            if counts is not None:
                counts.tell()

        environment = start.environment(directory, library=library)
        status = running.run(command, environment, meanwhile, interrupts)
        reader.read(collection.feed)
        reader.read(collection.feed)  # of children that had a last word
    if reader.lost:
        say(f"{reader.lost:,} events were lost: they came faster than they could be read")
    report = collection.report(command=tuple(command), library=library, exit_status=status)
    if not report.processes:
        say(
            "no Python process of this program could be observed. Is otel-concurrency installed "
            "where it runs, and does it start without -I, -E and -S?"
        )
    return report


def _observe_running(pid: int, seconds: float, *, wait: float | None, limit: int | None) -> Report:
    from otel_concurrency._observer import live, wire
    from otel_concurrency._trace_report import analysis

    collection = analysis.Collection() if limit is None else analysis.Collection(limit=limit)
    with attaching.attached(pid, {"what": live.TRACE, "seconds": seconds}, wait) as process:
        say(f"process {pid} is observed for {seconds:g} seconds, or until Ctrl-C")
        reader = wire.Reader(process.directory)
        counts = _Counts(collection) if sys.stderr.isatty() else None

        def has_answered() -> bool:
            answered = process.answer() is not None
            reader.read(collection.feed)
            if counts is not None:
                counts.tell()
            return answered

        try:
            answered = attaching.wait_for(has_answered, pid, seconds + attaching.WAIT)
        except KeyboardInterrupt:
            say("Ctrl-C: the process is left; a second one ends this command at once")
            process.stop()
            answered = attaching.wait_for(has_answered, pid, attaching.WAIT)
        reader.read(collection.feed)
        answer = process.answer()
        if not answered:
            ended = "has not left in time" if process.runs() else "has ended meanwhile"
            say(f"process {pid} {ended}: the report may lack its last events")
    if reader.lost:
        say(f"{reader.lost:,} events were lost: they came faster than they could be read")
    library = answer is None or answer[live.TRACE]["library"]
    report = collection.report(library=library)
    return replace(report, command=(f"process {pid}", *(each.command for each in report.processes)))


class _Counts:
    """Tells on the terminal, now and then, how much was seen, if that has changed."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._started = self._last_shown = time.monotonic()
        self._last: Mapping[str, int] = {}

    def tell(self) -> None:
        now = time.monotonic()
        if now - self._last_shown < _BETWEEN_COUNTS:
            return
        self._last_shown = now
        counts = dict(self._collection.counts())
        if counts == self._last:
            return
        self._last = counts
        seen = ", ".join(counted(counts[name], what) for name, what in _COUNTED.items())
        say(f"after {now - self._started:.0f} s: {seen}")


def _check(file: Path) -> None:
    """Raise CommandError where ``file`` could not be written when the program has run.

    Nothing is left where there was nothing: the command may end before there is a report.
    """
    try:
        is_new = not os.path.lexists(file)
        with file.open("a"):
            pass
        if is_new:
            file.unlink()
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}", 2) from None


def _write(reports: Mapping[str, Report], as_json: Path | None, as_page: Path | None) -> None:
    if as_json is not None:
        whole: Any = {name: each.as_json() for name, each in reports.items()}
        if len(reports) == 1:
            (whole,) = whole.values()
        with as_json.open("w", encoding="utf-8") as file:
            json.dump(whole, file, default=repr)
            file.write("\n")
    if as_page is not None:
        from otel_concurrency._cli import page

        titled = {f"library {name}": each for name, each in reports.items()}
        page.write(titled if len(reports) > 1 else next(iter(reports.values())), as_page)
