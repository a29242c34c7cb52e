"""The JSON schema of the library's section of a configuration file, from its dataclass.

``python tests/configuration/schema.py`` writes it into the documentation.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from otel_concurrency import Policy, _configuration, _settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.schema.json"

TYPES: dict[str, dict[str, Any]] = {
    "Switch": {"anyOf": [{"type": "boolean"}, {"enum": [policy.value for policy in Policy]}]},
    "Names": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "Milliseconds": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]},
    "bool | str": {"anyOf": [{"type": "boolean"}, {"enum": ["true", "false"]}]},
}
"""By the annotation of a field."""


def json_schema() -> dict[str, Any]:
    """Return the schema of what stands below `instrumentation/development: python: concurrency`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "otel-concurrency",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "enabled": {"type": "boolean", "default": True},
            **{
                field.name: TYPES[str(field.type).removesuffix(" | None")]
                for field in fields(_configuration.Configuration)
                if field.name != _settings.DECLARED
            },
        },
    }


if __name__ == "__main__":
    PAGE.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    sys.exit()
