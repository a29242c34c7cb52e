"""The tests of other projects that are run: those that their source distributions contain."""

from __future__ import annotations

from typing import NamedTuple

PYTEST = "pytest==9.0.2"


class Suite(NamedTuple):
    """A project, and how its tests are run."""

    version: str
    needs: tuple[str, ...] = ()
    """What its tests need, as ``pip install`` is told."""
    options: tuple[str, ...] = ()
    """What pytest is told."""
    tests: tuple[str, ...] = ()
    """Where they are; empty: where pytest's own configuration says."""
    hidden: str = ""
    """A directory that would be imported in place of what is installed, and is not built."""


SUITES = {
    "anyio": Suite(
        "4.16.0",
        (
            "blockbuster==1.5.29",
            "hypothesis==6.148.2",
            "psutil==7.1.3",
            "pytest-mock==3.15.1",
            "pytest-timeout==2.4.0",
            "trio==0.32.0",
            "trustme==1.2.1",
            "truststore==0.10.4",
            "uvloop==0.23.0",
        ),
    ),
    "apscheduler": Suite(
        "3.11.3",
        ("anyio==4.16.0", "pytest-timeout==2.4.0", "pytz==2025.2", "tornado==6.5.2"),
        ("-m", "not external_service"),
    ),
    "asgiref": Suite("3.13.0", ("packaging", "pytest-asyncio==1.5.0")),
    "culsans": Suite("0.11.0"),
    "janus": Suite(
        "2.0.0",
        ("pytest-asyncio==1.5.0",),
        ("-o", "addopts=", "--ignore=tests/test_benchmarks.py"),
    ),
    "joblib": Suite(
        "1.6.0", ("numpy", "psutil==7.1.3", "threadpoolctl==3.6.0"), tests=("joblib/test",)
    ),
    "uvloop": Suite(
        "0.23.0",
        ("aiohttp==3.13.2", "psutil==7.1.3", "pyOpenSSL==26.4.0"),
        ("--ignore=tests/test_sourcecode.py",),
        hidden="uvloop",
    ),
}
"""By the names that they have on PyPI."""
