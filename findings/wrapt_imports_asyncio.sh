#!/usr/bin/env bash
# Since wrapt 2.2.0 `import wrapt` imports asyncio, and with it ssl and concurrent.futures.
#
# One would guess: a library of decorators and proxies imports next to nothing; so it did up to 2.1.2.
# What happens: `wrapt.synchronization`, which the package imports, has `import asyncio` at its top, for
# the asynchronous form of its decorator. Every program that imports something that wraps functions, such
# as OpenTelemetry's instrumentation packages, has asyncio loaded then, whether it uses it or not.
# Why it matters: it takes longer to start, which a command or a spawned process that does little pays
# each time; and whoever asks `"asyncio" in sys.modules` to learn whether a program uses asyncio, or
# waits for its import to patch it, is told that every program does.
# Seen with wrapt 2.1.2 (March 2026), 2.2.0 (May 2026) and 2.5.2 (October 2026), Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env

cat >program.py <<'PYTHON'
import sys

before = set(sys.modules)
import wrapt

found = sorted({"asyncio", "concurrent.futures", "ssl"} & (set(sys.modules) - before))
print(f"wrapt {wrapt.__version__} imports {', '.join(found) or 'none of these'}")
PYTHON

for version in 2.1.2 2.2.0 2.5.2; do
    env/bin/python -m pip install --quiet --disable-pip-version-check "wrapt==$version"
    env/bin/python program.py
done | tee seen
cat >expected <<'TEXT'
wrapt 2.1.2 imports none of these
wrapt 2.2.0 imports asyncio, concurrent.futures, ssl
wrapt 2.5.2 imports asyncio, concurrent.futures, ssl
TEXT
diff expected seen
