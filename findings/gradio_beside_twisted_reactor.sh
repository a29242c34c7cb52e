#!/usr/bin/env bash
# Where Twisted's reactor has been imported, gradio cannot make a text box.
#
# One would guess: two libraries that know nothing of each other can be imported in one process, in
# either order, as long as they use different loops.
# What happens: zope.interface, by which Twisted says which interfaces its classes implement, notes that
# in the attribute __provides__ of each class on the way, also in abc.ABC, a class of the standard
# library. dir() of every class that is derived from ABC, of whatever library, has that name from then
# on, and asking an instance for it raises AttributeError. A component of gradio asks itself for every
# name in dir() of its class when it is made (Component.__init__, server_fns).
# Why it matters: a page of gradio in a process that uses Twisted (a crawler, a bot) cannot be built, in
# either order of the imports. Who walks over dir() has to expect names that cannot be read.
# Seen with gradio 6.31.0, Twisted 26.10.0, zope.interface 8.7 on Python 3.13.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    gradio==6.31.0 Twisted==26.10.0 zope.interface==8.7

cat >program.py <<'PYTHON'
import abc
import sys

if sys.argv[1] == "before":
    import twisted.internet.reactor
import gradio

if sys.argv[1] == "after":
    import twisted.internet.reactor


class OfTheProgram(abc.ABC):
    pass


listed = "__provides__" in dir(OfTheProgram)
try:
    gradio.Textbox()
    made = "a text box is made"
except AttributeError as error:
    made = f"AttributeError: {error}"
print(f"reactor {sys.argv[1]}: __provides__ in dir() of a class of the program: {listed}; {made}")
PYTHON

env/bin/python -c 'import sys; from importlib.metadata import version as v
print("gradio", v("gradio"), "Twisted", v("Twisted"), "zope.interface", v("zope.interface"),
      "Python", sys.version.split()[0])'
export GRADIO_ANALYTICS_ENABLED=False
found=$(for when in never before after; do env/bin/python program.py "$when" 2>/dev/null; done)
echo "$found"
[ "$found" = "reactor never: __provides__ in dir() of a class of the program: False; a text box is made
reactor before: __provides__ in dir() of a class of the program: True; AttributeError: __provides__
reactor after: __provides__ in dir() of a class of the program: True; AttributeError: __provides__" ]
