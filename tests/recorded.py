"""Keeps what a proof has found, for the page of the proofs."""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).parents[1] / "docs" / "proofs.json"


def record(proof: str, name: str, figures: dict[str, float]) -> None:
    """Keep the figures of one run, in the place of what was kept under its name."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    data[proof][name] = figures
    FILE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
