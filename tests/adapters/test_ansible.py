"""ansible-core, which makes a pool of daemon threads from a copy of a method of Python's own.

``ansible._internal._rpc_host`` runs a server in it that never ends. The copy has another
``threading`` among its globals: where they do not count the threads are ordinary ones, and the
interpreter waits for them for ever.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLAY = """\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: first
      ansible.builtin.debug: {msg: one}
    - name: second
      ansible.builtin.command: {argv: ["%(python)s", "-c", "print('two')"]}
      register: second
    - name: third
      ansible.builtin.%(third)s
"""
INSTRUMENTED = """\
import runpy, sys
from otel_concurrency import ConcurrencyInstrumentor
ConcurrencyInstrumentor().instrument()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""What runs a command with the library switched on."""

THIRD = {
    0: "assert: {that: \"second.stdout == 'two'\"}",
    2: "fail: {msg: three}",
}
"""By the status that the command ends with: the last task."""


@pytest.fixture(params=THIRD, ids="status {}".format)
def status(request):
    """Return the status that the play ends with."""
    return request.param


@pytest.fixture
def run_play(status, tmp_path):
    """Return what runs the play by the command itself, after other arguments."""
    play, command = tmp_path / "play.yml", Path(sys.executable).with_name("ansible-playbook")
    play.write_text(PLAY % {"python": sys.executable, "third": THIRD[status]})

    def run(*before, **variables):
        python = f"ansible_python_interpreter={sys.executable}"
        return subprocess.run(
            [*before, command, "--inventory", "localhost,", "--extra-vars", python, play],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env={
                **os.environ,
                "ANSIBLE_HOME": str(tmp_path / "home"),
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
                **variables,
            },
        )

    return run


def test_a_play_ends_as_it_does_without_the_library(status, run_play):
    """With the same status and the same words, whether threads are patched or pools alone."""
    plain = run_play()
    assert plain.returncode == status, plain.stdout + plain.stderr
    assert plain.stdout.count("TASK [") == 3

    for threading in ("parent", "off"):
        instrumented = run_play(
            sys.executable, "-c", INSTRUMENTED, OTEL_PYTHON_CONCURRENCY_THREADING=threading
        )
        assert instrumented.returncode == status, instrumented.stdout + instrumented.stderr
        assert instrumented.stdout == plain.stdout
