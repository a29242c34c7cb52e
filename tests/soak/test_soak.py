"""The soak itself works: a short one ends well, and it notices what it is there to notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

HERE = Path(__file__).parent

HOARD = f"""
import runpy, sys
from otel_concurrency._core import handoff
plain, held = handoff.capture, []

def capture(work):
    held.append(plain(work))
    return held[-1]

handoff.capture = capture
sys.argv[0] = {str(HERE)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A library that keeps every context for ever."""


def run(*command):
    """Run a command; return its exit status, and what it said without the frames of its tables."""
    done = subprocess.run(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, " ".join(done.stdout.replace("│", " ").split())


def test_a_short_soak_ends_well():
    """Some seconds of everything: no wrong parent, nothing lost, nothing grown."""
    status, said = run(HERE, "--minutes", "0.1", "--seed", "1")

    assert status == 0, said
    assert "wrong" in said
    for kind in ("submit", "asyncio.Queue", "timer rounds", "fork", "interpreters"):
        assert f" {kind} " in said


def test_a_soak_without_a_primitive_fails():
    """Where a primitive is switched off, its spans are not where they are meant to be."""
    status, said = run(HERE, "--minutes", "0.05", "--threads-only", "--off", "queue")

    assert status == 1, said
    assert "LifoQueue: is under 0, and meant to be under" in said


def test_a_soak_that_keeps_contexts_fails():
    """Where contexts are kept, there are more spans and contexts at the end than there were."""
    status, said = run("-c", HOARD, "--minutes", "0.05", "--threads-only")

    assert status == 1, said
    assert said.count("grown") >= 2
