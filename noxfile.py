"""The jobs of the gate as sessions of nox: ``nox -l`` lists them, ``nox -s checks`` runs one.

What a job does is defined in one place, ``.ci/job``; ``.ci/run`` makes what it needs. The session
``release`` is none of them: it prepares a version.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

HERE = Path(__file__).parent
VERSIONS = re.findall(
    r'"Programming Language :: Python :: (3\.\d+)"', (HERE / "pyproject.toml").read_text("utf-8")
)
NAMES = re.findall(
    r"^        ([a-z*-]+)\) ", (HERE / ".ci" / "job").read_text("utf-8"), re.MULTILINE
)

nox.options.sessions = ["checks"]


def add(job: str) -> None:
    """Add a session that runs one job of the gate."""

    @nox.session(name=job, venv_backend="none")
    def run(session: nox.Session) -> None:
        session.run("bash", ".ci/run", job, *session.posargs, external=True)


for name in NAMES:
    if name == "suite-pypy*":
        add("suite-pypy3.11")
    elif name.endswith("*"):
        for version in VERSIONS:
            add(name.replace("*", version))
    elif name != "*":
        add(name)


@nox.session(venv_backend="none")
def release(session: nox.Session) -> None:
    """Write the version that is named where it stands, and make the changelog's part of it."""
    (version,) = session.posargs
    for name, pattern in (
        ("src/otel_concurrency/version.py", r'(?m)^(__version__ = ").*(")$'),
        ("CITATION.cff", r"(?m)^(version: ).*()$"),
    ):
        file = HERE / name
        text, count = re.subn(pattern, rf"\g<1>{version}\g<2>", file.read_text("utf-8"))
        if count != 1:
            session.error(f"{name} has no version")
        file.write_text(text, "utf-8")
    session.run("towncrier", "build", "--yes", "--version", version, external=True)
