"""What the configuration file sets, for a program that does not read that file.

The demo's service has an SDK of its own, which the file must not configure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_concurrency import _adapters, _configuration, _primitives, _settings


def section() -> Mapping[str, Any]:
    """Return the library's section of the file that ``OTEL_CONFIG_FILE`` names; empty: none."""
    return _configuration.section() or {}


def variables() -> dict[str, str]:
    """Return the environment variables that have the same effect as the section."""
    declared = _configuration.keywords()
    if not declared:
        return {}
    settings = _settings.read(_primitives.NAMES, declared, _adapters.ADAPTERS)
    return {
        _settings.variable(name): _as_text(value) for name, value in settings.as_keywords().items()
    }


def _as_text(value: str | int | tuple[str, ...]) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
