#!/usr/bin/env bash
# Since opentelemetry-sdk 1.44.0 every forked child starts a thread for each TracerProvider of its parent,
# and waits for it to end, before `os.fork()` returns.
#
# One would guess: after a fork the SDK renews locks, and the queue of its batch processor; so it was up
# to 1.43.0. What happens: each provider gives itself a new `service.instance.id`, and asks the detectors
# of resources for it as at the start of a program: in a ThreadPoolExecutor of its own, of which one
# thread runs.
# Why it matters: a child of `multiprocessing` that does nothing, or a pre-forking server's worker, pays
# for it, sampled or not; a program that forks and has no other thread in the child has had one; and
# whoever patches `Thread.start` or the executor is called in the child before any of its code has run.
# Seen with opentelemetry-sdk 1.43.0, 1.44.0 and 1.45.2, Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env

cat >program.py <<'PYTHON'
import importlib.metadata
import os
import threading

from opentelemetry.sdk.trace import TracerProvider

started = []
start = threading.Thread.start


def noted(self):
    started.append(self)
    start(self)


threading.Thread.start = noted
providers = []
for count in (0, 1, 3):
    providers = [TracerProvider(shutdown_on_exit=False) for _ in range(count)]
    started.clear()
    child = os.fork()
    if child == 0:
        version = importlib.metadata.version("opentelemetry-sdk")
        print(f"{version}, {count} providers: {len(started)} threads were started", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
PYTHON

for version in 1.43.0 1.44.0 1.45.2; do
    env/bin/python -m pip install --quiet --disable-pip-version-check "opentelemetry-sdk==$version"
    env/bin/python program.py
done | tee seen
cat >expected <<'TEXT'
1.43.0, 0 providers: 0 threads were started
1.43.0, 1 providers: 0 threads were started
1.43.0, 3 providers: 0 threads were started
1.44.0, 0 providers: 0 threads were started
1.44.0, 1 providers: 1 threads were started
1.44.0, 3 providers: 3 threads were started
1.45.2, 0 providers: 0 threads were started
1.45.2, 1 providers: 1 threads were started
1.45.2, 3 providers: 3 threads were started
TEXT
diff expected seen
