"""Tests of other projects that pass without the library and fail with it, each with the reason."""

from __future__ import annotations

from with_and_without.report import Expected

EXPECTED: tuple[Expected, ...] = ()
