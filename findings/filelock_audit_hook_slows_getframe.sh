#!/usr/bin/env bash
# Since filelock 3.30.0 `import filelock` makes `sys._getframe()` many times slower, for good.
#
# One would guess: a library of file locks costs something where a file is locked.
# What happens: the import installs an audit hook, a function in Python that looks for forks. Nobody can
# remove such a hook. The interpreter calls it for every audited event in the process: for each file that
# is opened, each module that is imported, and each `sys._getframe()`, also of code that locks nothing.
# `sys._getframe()` takes 300 to 700 ns instead of 20 to 30; below, the calls of the hook are counted.
# Why it matters: `logging` calls that function for each record, as do `warnings`, `collections.namedtuple`,
# `typing` and what looks for its caller. While a Python audit hook runs, the interpreter sends no events
# of `sys.monitoring`, and calls no trace function; the garbage collector may run there, so what it ends
# is seen by no profiler. filelock comes with virtualenv, huggingface_hub, torch and many more.
# Seen with filelock 3.29.7 (no hook), 3.30.0, 3.32.7 and 4.3.1, Python 3.11 and 3.13. From 4.1.0 on the
# hook is left out on Python 3.11 and earlier.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env

cat >program.py <<'PYTHON'
import functools
import sys

add, names, calls = sys.addaudithook, [], 0


def add_counting(hook):
    """Add a hook that counts how often it is called."""

    @functools.wraps(hook)
    def counting(event, args):
        global calls
        calls += 1
        hook(event, args)

    names.append(hook.__qualname__)
    add(counting)


sys.addaudithook = add_counting
import filelock

calls = 0
for _ in range(1000):
    sys._getframe()
print(f"filelock {filelock.__version__}: {', '.join(names) or 'no hook'}, called {calls} times")
PYTHON

for version in 3.29.7 3.30.0 3.32.7; do
    env/bin/python -m pip install --quiet --disable-pip-version-check "filelock==$version"
    env/bin/python program.py
done | tee seen
cat >expected <<'TEXT'
filelock 3.29.7: no hook, called 0 times
filelock 3.30.0: _audit_fork_safety, called 1000 times
filelock 3.32.7: _audit_fork_safety, called 1000 times
TEXT
diff expected seen
