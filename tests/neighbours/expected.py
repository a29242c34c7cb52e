"""Tests of other projects that pass without the library and fail with it, each with the reason."""

from __future__ import annotations

from with_and_without.report import Expected

EXPECTED = (
    Expected(
        "tests/test_process.py::Test_AIO_Process::test_process_env_2",
        "It gives a command an empty environment and expects nothing there; `SUBPROCESS`, which is "
        "off unless it is asked for, adds the context.",
    ),
)
