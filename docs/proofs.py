"""The table of proofs: what was tried, the figures that were found, and the command for it.

Figures of what takes long are in ``proofs.json``, where the commands write them with ``--record``.
The others are counted in the code of the tests. None is written here.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("proofs.json")
TESTS = Path(__file__).parents[1] / "tests"


def table() -> str:
    """Return the table, with the figures that were recorded and those of the code."""
    return made_of(json.loads(FILE.read_text(encoding="utf-8")))


def made_of(recorded: dict[str, Any]) -> str:
    """Return the table with these figures of what takes long."""
    rows = [
        _of_cpython(recorded["cpython"]),
        _of_neighbours(recorded["neighbours"]),
        _of_real_programs(),
        _of_soak(recorded["soak"]),
        (
            "Faults: the library's functions are made to raise, one at a time, while a program "
            "uses what they cover; those of the adapters, too, with the libraries themselves",
            "wherever a fault strikes, the program's results are those without the library; no "
            "fault is reported twice in the same words",
            "python -m pytest -m scale tests/faults",
        ),
        (
            "Bad moments: the recursion limit, no memory, a signal, a fork inside work, the "
            "interpreter's end with work pending, switching on and off from several threads",
            "the program's results are those without the library",
            "python -m pytest tests/faults/test_moments.py",
        ),
        (
            "Bad input: settings, headers in the environment, and what other processes send, all "
            "made by hypothesis",
            "results unchanged, one warning at most",
            "python -m pytest tests/test_settings.py tests/crossing/test_bad_input.py",
        ),
        _of_others(),
        _of_the_compiled_part(),
        _of_instructions(),
    ]
    lines = [("proof", "figures", "command"), ("---",) * 3]
    lines += [(proof, figures, f"`{command}`") for proof, figures, command in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


Row = tuple[str, str, str]


def _of_cpython(recorded: dict[str, Any]) -> Row:
    expected = _names("cpython/expected.py")["EXPECTED"]
    listed = [
        sum(not one.versions or version in one.versions for one in expected) for version in recorded
    ]
    counts = (f"{each['tests']:,} of {version}" for version, each in _by_version(recorded))
    return (
        "CPython's own tests for threads, futures, queues, asyncio, processes and generators, the "
        "latter also with generators that hold spans, without the library and with it, test by "
        "test",
        f"tests of Python: {_listed(counts)}; without a context, in a span with baggage, and under "
        f"`link`. {min(listed)} to {max(listed)} of them differ on each, {len(expected)} in all, "
        "[each with its reason](../tests/cpython/expected.py); an entry that does not differ any "
        "more is an error, too",
        "python tests/cpython --full",
    )


def _of_neighbours(recorded: dict[str, Any]) -> Row:
    expected = len(_names("neighbours/expected.py")["EXPECTED"])
    others = _names("neighbours/suites.py")["SUITES"].keys() - recorded
    counts = (f"{name} ({each['tests']:,})" for name, each in sorted(recorded.items()))
    longer = f"; {_listed(sorted(others))} take longer, and are not recorded" if others else ""
    return (
        f"The tests of {_listed(counts)}, in the same way{longer}",
        f"tests that differ: {expected}, [with the reason](../tests/neighbours/expected.py)",
        "python tests/neighbours",
    )


def _of_real_programs() -> Row:
    programs = _names("real_programs/test_real_programs.py")["PROGRAMS"]
    spans, roots, without = (
        sum(getattr(each, what) for each in programs.values())
        for what in ("spans", "roots", "without")
    )
    return (
        f"{len(programs)} real programs, each on a small project that makes spans, without the "
        f"library and with it: {_listed(programs)}",
        "status, output and the number of spans are the same; "
        f"of {spans} spans none has a wrong parent, and {roots} are roots, without the library "
        f"{without}",
        "python -m pip install '.[dev-programs]' && python -m pytest tests/real_programs",
    )


def _of_soak(recorded: dict[str, Any]) -> Row:
    runs = (
        f"{each['spans']:,} spans in {each['minutes']:g} minutes on Python {version}"
        for version, each in _by_version(recorded)
    )
    return (
        "Soak: all primitives at once, with exceptions, cancellations, shut-downs and forks; the "
        "intended parent of each span is written down before the hand-off",
        f"{_listed(runs)}: none has another parent, and no result is lost; at the end there are as "
        "many live spans, contexts, threads and descriptors as after the first round",
        "python tests/soak --minutes 10 --seed 7",
    )


def _of_others() -> Row:
    orders = len(_names("test_beside_others.py")["ORDERS"])
    return (
        "Neighbours' patches: Sentry, Datadog, gevent, debugpy and coverage, switched on before "
        "and after, off before and after",
        f"{orders} orders with each: each form of work has its parent as long as this library is "
        "on, and none afterwards",
        "python -m pytest tests/test_beside_others.py",
    )


def _of_the_compiled_part() -> Row:
    hand_offs = _names("core/test_compiled.py")["HAND_OFFS"]
    return (
        f"The compiled part: references and blocks of memory before and after {hand_offs:,} "
        "hand-offs of each form; each step of it made to fail, also by an interrupt; interpreters "
        "with a GIL of their own",
        "growth 0; results unchanged; the same tests under AddressSanitizer without a finding",
        'python -m pytest -m "scale or not scale" tests/core/test_compiled.py',
    )


def _of_instructions() -> Row:
    tolerance = _names("benchmarks/instructions.py")["TOLERANCE"]
    return (
        "Recorded cost: bytecode instructions and calls into C of the library's own code, for each "
        "operation on each Python, compiled and pure",
        f"the same in every run; more than {tolerance * 100:g} % beyond the record is an error",
        "python tests/benchmarks/instructions.py",
    )


def _by_version(recorded: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(recorded.items(), key=lambda item: [int(part) for part in item[0].split(".")])


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _names(file: str) -> dict[str, Any]:
    """Return what a file of the tests defines; it finds what stands beside it."""
    path = TESTS / file
    before = sys.path[:]
    sys.path[:0] = [str(path.parent), str(TESTS)]
    try:
        return runpy.run_path(str(path))
    finally:
        sys.path[:] = before
