#!/usr/bin/env bash
# A threading.Timer in a program that gevent has patched never fires beside OpenTelemetry's instrumentor of threads.
#
# One would guess: a Timer that gevent has made a greenlet is instrumented as any thread is, and fires.
# What happens: nothing, silently, whether it is started inside a span or outside any. gevent has put
# gevent.threading.Thread in the place of threading.Thread, a class without a `run` of its own, and its
# Timer has the bases gevent.threading.Thread, threading.Timer, in this order. The instrumentor
# (ThreadingInstrumentor._instrument_thread) puts a wrapper of the inherited Thread.run on the first of
# them, where it stands before Timer.run: the timer's body is that of a thread without a target.
# Why it matters: both packages are usual under gunicorn's gevent workers, and what is lost are time-outs,
# retries and heartbeats, not spans alone.
# Seen with opentelemetry-instrumentation-threading 0.66b1, gevent 26.9.0, wrapt 2.5.2, Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    opentelemetry-instrumentation-threading==0.66b1 gevent==26.9.0 wrapt==2.5.2

cat >program.py <<'PYTHON'
import sys

from gevent import monkey

monkey.patch_all()

import threading

from opentelemetry.instrumentation.threading import ThreadingInstrumentor

if "on" in sys.argv:
    ThreadingInstrumentor().instrument()
fired = []
for thread in (
    threading.Thread(target=fired.append, args=("Thread",)),
    threading.Timer(0.01, fired.append, ("Timer",)),
):
    thread.daemon = True
    thread.start()
    thread.join(5)
print(*fired)
PYTHON

off=$(env/bin/python program.py off)
on=$(env/bin/python program.py on)
env/bin/python -m pip list 2>/dev/null | grep -E '^(gevent|opentelemetry-instrumentation-threading|wrapt) '
echo "instrumentor off, fired: $off"
echo "instrumentor on, fired:  $on"
[ "$off" = "Thread Timer" ] && [ "$on" = "Thread" ]
