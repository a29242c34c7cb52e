"""The library's section of a declarative configuration file: its keys, and what it says here.

``opentelemetry-configuration`` turns what stands below ``instrumentation/development: python:
concurrency`` into an instance of :class:`Configuration`, and calls ``instrument()`` with the fields
that are set (``opentelemetry.configuration.instrumentation``, 0.65b0 to 0.66b2). The loader of
``opentelemetry-instrument``, which comes after it, does not read the file: what the section says
about that call is looked up here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from otel_concurrency import _settings
from otel_concurrency._core import faults

_logger = logging.getLogger(__name__)

_NAME = "concurrency"
"""The name of the section, which is that of the entry point."""

Switch = bool | str
"""A policy by its name; ``false`` is ``off``, ``true`` the default. YAML reads ``off`` as false."""

Names = str | list[str]
"""Names, as a list or comma-separated."""

Milliseconds = int | str


@dataclass(init=False)
class Configuration:
    """The keys of the section, which are the keywords of ``instrument()``; None is unset.

    Keys that are unknown are reported once, and the others apply.
    """

    policy: Switch | None = None
    threading: Switch | None = None
    futures: Switch | None = None
    asyncio: Switch | None = None
    sched: Switch | None = None
    queue: Switch | None = None
    multiprocessing: Switch | None = None
    subprocess: Switch | None = None
    generators: Switch | None = None
    adapters: Names | None = None
    excluded: Names | None = None
    link_after: Milliseconds | None = None
    flush_timeout: Milliseconds | None = None
    metrics: bool | str | None = None
    report_orphans: bool | str | None = None
    keep_official_threading: bool | str | None = None
    declared: bool = True
    """Tells ``instrument()`` where its keywords come from; no key of the file."""

    def __init__(self, **section: Any) -> None:
        keys = known_keys()
        for key, value in section.items():
            if key in keys:
                setattr(self, key, value)
            else:
                faults.in_one_line(
                    _logger,
                    ("key", key),
                    "%r in the section %r of the configuration file is not a setting of "
                    "otel-concurrency and is ignored. The settings are: enabled, %s.",
                    key,
                    _NAME,
                    ", ".join(sorted(keys)),
                )


def known_keys() -> tuple[str, ...]:
    """Return the keys that the section may have beside ``enabled``, which others read."""
    return tuple(each.name for each in fields(Configuration) if each.name != _settings.DECLARED)


def section() -> Mapping[str, Any] | None:
    """Return the section of the file that ``OTEL_CONFIG_FILE`` names, or None where there is none.

    Never raises: a file that cannot be read has been reported by the SDK.
    """
    file = os.environ.get(_settings.CONFIGURATION_FILE)
    if not file:
        return None
    try:
        configuration: Any = import_module("opentelemetry.configuration")
        instrumentation = configuration.load_config_file(file).instrumentation_development
        python = None if instrumentation is None else instrumentation.python
        found: Mapping[str, Any] | None = None if python is None else python.get(_NAME)
    except Exception as error:
        _logger.debug("The configuration file %s cannot be read: %s", file, error)
        return None
    return found


def is_disabled() -> bool:
    """Whether the section says that the library is to stay off where it is not asked by name."""
    found = section()
    return found is not None and not found.get("enabled", True)


def keywords() -> dict[str, Any]:
    """Return the keywords of ``instrument()`` that the section amounts to; none without one."""
    found = section()
    if found is None:
        return {}
    given = Configuration(**{key: value for key, value in found.items() if key != "enabled"})
    values = {each.name: getattr(given, each.name) for each in fields(given)}
    return {name: value for name, value in values.items() if value is not None}
