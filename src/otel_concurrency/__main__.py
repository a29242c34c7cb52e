"""``python -m otel_concurrency``: the command, where its script is not on the path."""

from __future__ import annotations

from otel_concurrency._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
