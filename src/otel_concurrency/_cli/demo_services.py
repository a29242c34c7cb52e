"""Runs the order service of ``otel-concurrency demo`` without the library and with it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from otel_concurrency._cli import CommandError, spans
from otel_concurrency._cli.demo import BAGGAGE, SETTINGS, TENANT
from otel_concurrency._status import declared

_SERVICE = "otel_concurrency._cli.order_service"
_ORDER = {"items": ["desk", "chair", "lamp"]}

_TIME_LIMIT = 60.0
"""Seconds that a service may take from its start to its end; it needs about one."""


@dataclass(frozen=True)
class Run:
    """What a service exported, and what may explain it: its settings and its log."""

    spans: tuple[spans.ExportedSpan, ...]
    circumstances: str


def run_both(directory: Path) -> tuple[Run, Run]:
    """Run the service in directories below ``directory``, at the same time: without, and with."""
    return asyncio.run(_run_both(directory))


async def _run_both(directory: Path) -> tuple[Run, Run]:
    off, on = await asyncio.gather(
        _serve_one_order(directory / "off", library=False),
        _serve_one_order(directory / "on", library=True),
        return_exceptions=True,  # a failure of one must not interrupt the other's cleaning up
    )
    if isinstance(off, BaseException):
        raise off
    if isinstance(on, BaseException):
        raise on
    return off, on


async def _serve_one_order(directory: Path, *, library: bool) -> Run:
    """Run the service in ``directory``, send it an order, and return what it exported."""
    directory.mkdir()
    exported, log = directory / "spans.jsonl", directory / "log"
    with log.open("wb") as stderr:
        service = await asyncio.create_subprocess_exec(
            _opentelemetry_instrument(),
            sys.executable,
            "-m",
            _SERVICE,
            str(exported),
            cwd=directory,  # which opentelemetry-instrument adds to the service's import path
            env=_environment(library=library),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C is for us, who then end the service
        )
    try:
        await asyncio.wait_for(_order_from(service), _TIME_LIMIT)
        problem = f"ended with exit status {service.returncode}" if service.returncode else ""
    except asyncio.TimeoutError:
        problem = f"did not end within {_TIME_LIMIT:.0f} s"
    except (OSError, ValueError, http.client.HTTPException) as error:
        problem = f"did not take an order ({type(error).__name__}: {error})"
    finally:
        if service.returncode is None:
            service.kill()
            await service.wait()

    circumstances = _circumstances(log.read_text("utf-8", errors="replace").strip())
    if problem:
        name = f"the order service ({'with' if library else 'without'} the library)"
        raise CommandError(f"{name} {problem}.{circumstances}")
    return Run(spans.parse(exported.read_text("utf-8").splitlines()), circumstances)


async def _order_from(service: asyncio.subprocess.Process) -> None:
    """Send an order to the port that ``service`` announces, and wait until it has ended."""
    assert service.stdout is not None  # noqa: S101 - it is a pipe
    port = await service.stdout.readline()
    if port:
        await asyncio.to_thread(_post_order, int(port))
    await service.wait()


def _post_order(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIME_LIMIT)
    try:
        headers = {"Content-Type": "application/json", "Baggage": f"{BAGGAGE}={TENANT}"}
        connection.request("POST", "/orders", json.dumps(_ORDER), headers)
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != http.client.ACCEPTED:
        raise http.client.HTTPException(f"HTTP status {answer.status}")


def _environment(*, library: bool) -> dict[str, str]:
    """Return ours with only this library's settings, and no other instrumentation than this one.

    Everything else of OpenTelemetry that is configured or installed where the demo is run (a
    sampler, a distro, another instrumentor that carries context too) would blur what it shows.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("OTEL_") or key.startswith(SETTINGS)
    }
    installed = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    disabled = installed - {"concurrency"} if library else installed | {"concurrency"}
    return {
        **kept,
        **declared.variables(),  # the file itself would configure the service's SDK too
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(sorted(disabled)),
        "OTEL_PYTHON_DISTRO": "none",
        "OTEL_PYTHON_CONFIGURATOR": "none",
    }


def _circumstances(log: str) -> str:
    """Return the settings in force and what was logged, to follow a sentence."""
    settings = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)]
    words = f" The environment has {' '.join(settings)}." if settings else ""
    if section := declared.section():
        words += f" The configuration file has {json.dumps(section, default=str)}."
    return f"{words} The service logged:\n{log}" if log else words


def _opentelemetry_instrument() -> str:
    """Return the path of the command that belongs to this interpreter, else the one on PATH."""
    own = (
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
    )
    path = os.pathsep.join((*own, os.environ.get("PATH", os.defpath)))
    command = shutil.which("opentelemetry-instrument", path=path)
    if command is None:
        raise CommandError(
            "there is no command opentelemetry-instrument; it comes with the package "
            "opentelemetry-instrumentation"
        )
    return command
