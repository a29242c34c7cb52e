#!/usr/bin/env bash
# With reactivex's `observe_on` over an asyncio loop a value is observed in the context of an earlier one.
#
# One would guess: a callback of `call_soon` runs in a copy of the context in which it was scheduled (PEP
# 567), and `observe_on(AsyncIOScheduler(loop))` schedules by `call_soon`; so each value is observed in
# the context variables of whoever emitted it.
# What happens: only the first value of a busy moment is. The observer has a list of its own for what
# comes meanwhile; the callback takes one value from it and schedules itself again, from inside itself,
# and so in its own context (reactivex.observer.scheduledobserver.ScheduledObserver.run). Values of
# other tasks are observed as if the first task had emitted them, until the list is empty once.
# Why it matters: whatever follows context variables (tenant, trace, locale, log fields) is another
# request's, and only under load: one value at a time shows nothing.
# Seen with reactivex 6.1.0 (the newest) and 4.0.4, Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >program.py <<'PYTHON'
import asyncio
import contextvars

from reactivex import operators
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

tenant = contextvars.ContextVar("tenant", default="nobody")


async def emit(subject, value):
    """Emit a value as a request of that tenant would."""
    tenant.set(value)
    subject.on_next(value)


async def main():
    subject = Subject()
    scheduler = AsyncIOScheduler(asyncio.get_running_loop())
    subject.pipe(operators.observe_on(scheduler)).subscribe(
        lambda value: print(f"{value}'s value is observed where the tenant is {tenant.get()}")
    )
    await asyncio.gather(*[emit(subject, value) for value in ("ann", "bob", "cid")])
    await asyncio.sleep(0.1)
    await asyncio.create_task(emit(subject, "dan"))
    await asyncio.sleep(0.1)


asyncio.run(main())
PYTHON

cat >expected <<'TEXT'
ann's value is observed where the tenant is ann
bob's value is observed where the tenant is ann
cid's value is observed where the tenant is ann
dan's value is observed where the tenant is dan
TEXT

for version in 6.1.0 4.0.4; do
    "${PYTHON:-python3}" -m venv "env-$version"
    "env-$version/bin/python" -m pip install --quiet --disable-pip-version-check "reactivex==$version"
    echo "reactivex $version"
    "env-$version/bin/python" program.py | tee seen
    diff expected seen
done
