"""A started process stands by: it is instrumented when its own code needs that, and not before.

The children are those of ``apps/late.py``, whose main module imports nothing of OpenTelemetry.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interpreters import THREADS_INHERIT
from programs import APPS

OURS = {
    "__future__",
    "otel_concurrency",
    "otel_concurrency._child",
    "otel_concurrency.version",
}
"""What a child imports to stand by, beside what it imports without the library."""

METHODS = ("spawn", "forkserver")


def run_all(names: tuple[str, ...], method: str, *more: str) -> dict[str, Any]:
    """Run the program; return the trace of its span, and what its children have said."""
    printed = subprocess.run(
        [sys.executable, str(APPS / "late.py"), ",".join(names), method, *more],
        check=True,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert printed.stderr == ""
    found: dict[str, Any] = json.loads(printed.stdout)
    return found


def run(what: str, method: str = "spawn", *more: str) -> dict[str, Any]:
    """Run the program for one child."""
    found = run_all((what,), method, *more)
    return {"trace": found["trace"], "answer": found["answers"][what]}


IN_THE_CONTEXT = (
    "import_here",
    "start_thread",
    "start_looked_up_before",
    "start_raw_thread",
    "put_item",
    "submit_to_pool",
    "submit_by_asyncio",
    "start_grandchild",
    "after_copied_variables",
    "in_copied_variables",
    "import_wrapt_first",
    "import_futures_first",
    "import_asyncio_first",
    "look_for_package",
    "in_a_thread_by_hand",
    "start_joinable_thread",
    "replace_finders",
    "import_past_all",
    "reload_first",
    "look_for_asyncio",
)


AT_ONCE = 5
"""How many children have a parent in common: it takes as long as a child itself."""


@functools.cache
def run_some(first: int, *more: str) -> dict[str, Any]:
    """Run the program for some of these, from the first one on."""
    return run_all(IN_THE_CONTEXT[first : first + AT_ONCE], "spawn", *more)


@pytest.mark.parametrize("api", [(), ("api",)], ids=["without", "with the API"])
@pytest.mark.parametrize("what", IN_THE_CONTEXT)
def test_what_a_child_does_first_is_in_the_context_of_its_start(what, api):
    """Whatever it is by which its code comes to need a context, and wherever that is looked at."""
    number = IN_THE_CONTEXT.index(what)
    found = run_some(number - number % AT_ONCE, *api)
    assert found["answers"][what] == [found["trace"], "acme"]


@pytest.mark.parametrize("what", ["start_thread", "import_here"])
def test_so_is_that_of_a_child_of_a_server(what):
    """A child of the fork server stands by as a spawned one does."""
    found = run(what, "forkserver")
    assert found["answer"] == [found["trace"], "acme"]


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_does_nothing_imports_nothing(method):
    """What it has to import of the library is named here; of what that needs, nothing."""
    plain = run("nothing", method, "plain")["answer"]
    found = run("nothing", method)["answer"]
    assert set(found) - set(plain) == OURS


def test_a_child_may_say_otherwise_of_itself():
    """Settings of its own hold in it, and its work is in the context of its start all the same."""
    found = run("switched_on_by_the_child")
    context = [found["trace"], "acme"]
    assert found["answer"] == [*context, *(context if THREADS_INHERIT else ["0", None])]


def test_the_program_may_patch_what_begins_a_flow():
    """Its replacement stays in place. The thread by which it is found out starts in no context."""
    found = run("start_below_another_patch")
    context = [found["trace"], "acme"]
    assert found["answer"] == [*(context if THREADS_INHERIT else ["0", None]), *context]


def test_a_handler_of_signals_that_was_registered_while_it_stood_by():
    """It runs in no context, and is what the program has registered."""
    found = run("handle_signal")
    assert found["answer"] == [found["trace"], "acme", "0", None, "<lambda>"]


def test_a_handler_of_signals_that_raises_while_it_is_switched_on():
    """What it raises reaches the program, as without the library, and the child is instrumented."""
    found = run("handle_signal_by_raising")
    assert found["answer"] == [found["trace"], "acme"]


def test_a_thread_that_was_started_unseen_is_no_part_of_the_work():
    """It has no context, even if it is the thread in which the child is switched on."""
    found = run("start_unseen_thread")
    assert found["answer"] == ["0", None]


def test_a_child_that_cannot_import_the_library_goes_on_without_it():
    """Nothing is raised in its calls, and nothing is logged."""
    assert run("without_the_library")["answer"] == ["ran"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_recorded_is_exported(method):
    """Spans of a provider that was made after the child stood by are exported at its end."""
    found = run("spans_at_the_end", method)
    file = Path(str(found["answer"]))
    span = json.loads(file.read_text())
    file.unlink()
    assert span["context"]["trace_id"] == f"0x{found['trace']:0>32}"
    assert span["parent_id"] is not None
