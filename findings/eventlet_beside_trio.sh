#!/usr/bin/env bash
# eventlet cannot be imported beside dnspython, httpx2 with HTTP/2, and trio, though it is told of none.
#
# One would guess: a package that merely is installed changes nothing for a program that does not import
# it; eventlet uses dnspython where that is there, for name look-ups that do not block.
# What happens: eventlet imports dnspython anew with its own sockets in the place of the standard ones.
# For DNS over HTTPS dnspython imports httpcore2 where httpx2 and h2 are installed, and httpcore2 imports
# trio where that is. Trio then is loaded over eventlet's socket class, and reads a method of it while it
# defines a class of its own: `sendmsg`, which eventlet's class does not have. So `import eventlet` raises
# AttributeError, though any one of the others may be left out. EVENTLET_NO_GREENDNS=yes is the way round.
# Why it matters: a client of a language model (httpx2), a driver of a database (dnspython) and a test
# tool (trio) that come into an environment for other reasons take eventlet, and what stands on it, away.
# Seen with eventlet 0.41.3, dnspython 2.9.2, httpx2 2.16.2, h2 4.4.1, trio 0.35.0, Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
install() { env/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
attempt() {
    local end
    end=$(env "$@" env/bin/python -c 'import eventlet; print("imported")' 2>&1 | tail -n 1)
    printf '%s\n' "$end"
}

install eventlet==0.41.3 dnspython==2.9.2 trio==0.35.0
{
    echo "eventlet, dnspython, trio: $(attempt)"
    install httpx2==2.16.2 httpcore2==2.16.2 h2==4.4.1
    echo "and httpx2: $(attempt)"
    echo "without dnspython in use: $(attempt EVENTLET_NO_GREENDNS=yes)"
    env/bin/python -m pip uninstall --quiet --yes trio
    echo "without trio: $(attempt)"
} | tee seen
env/bin/python -m pip list 2>/dev/null | grep -E '^(eventlet|dnspython|httpx2) '
cat >expected <<'TEXT'
eventlet, dnspython, trio: imported
and httpx2: AttributeError: type object 'GreenSocket' has no attribute 'sendmsg'
without dnspython in use: imported
without trio: imported
TEXT
diff expected seen
