"""Runs in every process under ``otel-concurrency trace`` before the program's first line.

It instruments the process as ``opentelemetry-instrument`` does, and observes it. No exporter is
needed: if the environment names none, none is configured, and the program can configure one in
code.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Generator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

DIRECTORY = "OTEL_CONCURRENCY_TRACE_DIRECTORY"
"""The variable with the directory from which the command reads events."""

STATUS = "OTEL_CONCURRENCY_STATUS_FILE"
"""The variable with the file to which the first process writes its status."""

LIBRARY = "OTEL_CONCURRENCY_TRACE_LIBRARY"
"""The variable that is ``off`` if this library must stay switched off."""

AUTOSTART = str(Path(__file__).parent / "autostart")
"""The directory that must be first in ``PYTHONPATH`` for :func:`start` to be called."""

_logger = logging.getLogger(__name__)

_LAUNCHER = "opentelemetry-instrument"
_START_UP = "opentelemetry.instrumentation.auto_instrumentation.sitecustomize"
_CONFIGURATOR = "OTEL_PYTHON_CONFIGURATOR"
_EXPORTERS = "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"
_OF_PYTHON = "multiprocessing.resource_tracker"
"""A helper process of Python itself, in which no code of the program runs."""


def environment(
    directory: Path, *, library: bool, given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return a copy of ``given`` in which every Python writes its events to ``directory``."""
    return _environment(given, {DIRECTORY: str(directory), LIBRARY: "on" if library else "off"})


def environment_for_status(file: Path, *, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a copy of ``given`` in which the first Python writes its status to ``file``."""
    return _environment(given, {STATUS: str(file)})


def _environment(given: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    copy = {**given, **added}
    paths = [path for path in copy.get("PYTHONPATH", "").split(os.pathsep) if path]
    if os.getcwd() not in paths:  # as opentelemetry-instrument does
        paths.insert(0, os.getcwd())
    copy["PYTHONPATH"] = os.pathsep.join((AUTOSTART, *paths))
    return copy


def _reaches(environment: Mapping[str, str]) -> bool:
    """Whether a Python that is started in ``environment`` is observed."""
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    return bool(environment.get(DIRECTORY)) and AUTOSTART in paths


def start() -> None:
    """Instrument this process and observe it, if it was started to be. Never raises."""
    directory, status = os.environ.get(DIRECTORY), os.environ.get(STATUS)
    if not (directory or status) or any(_OF_PYTHON in argument for argument in sys.orig_argv):
        return
    try:
        if any(Path(argument).name == _LAUNCHER for argument in sys.orig_argv[:3]):
            _follow_the_launcher()
            return
        from otel_concurrency._status import snapshot

        if status:
            snapshot.write_at_exit(Path(status))
        _start(directory, library=os.environ.get(LIBRARY) != "off")
    except Exception:
        _logger.exception("otel-concurrency cannot observe process %s", os.getpid())


def _start(directory: str | None, *, library: bool) -> None:
    from otel_concurrency._observer import observer, provider, wire

    if not library:
        _keep_the_library_off()
    configured = _is_configured(os.environ)
    if not configured:
        for name in _EXPORTERS:
            os.environ.setdefault(name, "none")
        configured = any(
            os.environ[name].strip().lower() not in ("", "none") for name in _EXPORTERS
        )
    if not configured:
        provider.provide()
    _instrument(configure=configured)
    provider.provide()
    if directory:
        observer.start(wire.Writer(directory).emit, library=library, reaches=_reaches)


def _is_configured(variables: Mapping[str, str]) -> bool:
    """Whether the environment names an exporter, or a configurator that chooses one."""
    return (
        bool(variables.get("OTEL_CONFIG_FILE"))
        or bool(variables.get(_CONFIGURATOR))
        or any(name.startswith("OTEL_EXPORTER_") and value for name, value in variables.items())
    )


def _instrument(*, configure: bool) -> None:
    """Do what ``opentelemetry-instrument`` does in a process.

    A process that is started on the way is not to do the same, and start one that does …
    """
    path = os.environ.get("PYTHONPATH", "")
    with contextlib.ExitStack() as until_done:
        until_done.enter_context(_set(os.environ, "PYTHONPATH", _without(path, AUTOSTART)))
        if not configure:
            until_done.enter_context(_set(os.environ, _CONFIGURATOR, "none"))
            until_done.enter_context(_quiet_about_configurators())
        importlib.import_module(_START_UP)


def _keep_the_library_off() -> None:
    """Keep this library off, whether the environment or the program's own code switches it on."""
    from otel_concurrency import ConcurrencyInstrumentor

    def do_nothing(*_: Any, **__: Any) -> None: ...

    instrumentor: Any = ConcurrencyInstrumentor
    instrumentor._instrument = instrumentor._uninstrument = do_nothing


def _follow_the_launcher() -> None:
    """Keep our directory first in ``PYTHONPATH`` when ``opentelemetry-instrument`` runs a program.

    It puts its own start-up module first, and only the first one runs.
    """
    execute: Callable[..., Any] = os.execl

    def execl(*arguments: Any) -> Any:
        path = _without(os.environ.get("PYTHONPATH", ""), AUTOSTART)
        os.environ["PYTHONPATH"] = os.pathsep.join((AUTOSTART, path))
        return execute(*arguments)

    setattr(os, "execl", execl)  # noqa: B010 - the signatures differ


def _without(path: str, directory: str) -> str:
    return os.pathsep.join(each for each in path.split(os.pathsep) if each != directory)


@contextlib.contextmanager
def _set(variables: MutableMapping[str, str], name: str, value: str) -> Generator[None, None, None]:
    before = variables.get(name)
    variables[name] = value
    try:
        yield
    finally:
        if before is None:
            variables.pop(name, None)
        else:
            variables[name] = before


@contextlib.contextmanager
def _quiet_about_configurators() -> Generator[None, None, None]:
    """Suppress OpenTelemetry's warnings that an installed configurator is not used."""
    logger = logging.getLogger("opentelemetry.instrumentation.auto_instrumentation._load")

    def is_wanted(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Configuration of %s not loaded")

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)
