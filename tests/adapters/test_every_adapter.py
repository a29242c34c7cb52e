"""What holds for every adapter, with the library itself: the order of imports, and undo.

One program for each order imports all libraries that are there. What an adapter carries is tested
in a file of its own.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from suite import run_program

from otel_concurrency import _adapters

MODULES = {
    library: [
        module
        for module in dict.fromkeys(sum(by_primitive.values(), ()))
        if find_spec(module.split(".")[0])
    ]
    for library, by_primitive in _adapters.ADAPTERS.items()
}
"""By library: the modules that its adapter patches, of packages that are there."""

LONGEST = 500
"""How many seconds a program may take: the first to import a library compiles all of it."""

pytestmark = pytest.mark.timeout(2 * LONGEST)

every_adapter = pytest.mark.parametrize("library", [one for one in MODULES if MODULES[one]])

BEGINNING = """
import contextlib, importlib, json, os, sys, types, warnings
warnings.simplefilter("ignore")
os.environ["EVENTLET_NO_GREENDNS"] = "yes"
directory, wanted = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, directory)

from otel_concurrency import ConcurrencyInstrumentor, _adapters, _instrumentor
instrumentor = ConcurrencyInstrumentor()
imported = []
packages = {module.split(".")[0] for modules in wanted.values() for module in modules}

def import_all():
    with contextlib.suppress(ImportError):
        import django_site
    for module in dict.fromkeys(sum(wanted.values(), [])):
        with contextlib.suppress(ImportError):  # not every version has each of them
            importlib.import_module(module)
            imported.append(module)

def is_theirs(name):
    return isinstance(name, str) and name.split(".")[0] in packages

def attributes():
    "Return all attributes of the libraries' modules, and of the classes that they define."
    owners = {}
    for module in [one for name, one in [*sys.modules.items()] if is_theirs(name)]:
        if issubclass(type(module), types.ModuleType) and is_theirs(vars(module)["__name__"]):
            owners[id(module)] = module
            for value in [*vars(module).values()]:
                if issubclass(type(value), type) and is_theirs(value.__module__):
                    owners[id(value)] = value
    return [(id(owner), f"{owner.__name__}.{name}", value)
            for owner in owners.values() for name, value in [*vars(owner).items()]]

def changed(before, now):
    "Return the names of the attributes that are other objects now. PySide makes some late."
    values = {(owner, name): value for owner, name, value in now}
    return sorted({name for owner, name, value in before
                   if values.get((owner, name), changed) is not value})

def of_adapters(found):
    "Return the names of the functions that adapters have made."
    directory = os.path.dirname(_adapters.__file__)
    codes = ((name, getattr(getattr(value, "__func__", value), "__code__", None))
             for _, name, value in found
             if type(value) in (types.FunctionType, staticmethod, classmethod))
    return sorted({name for name, code in codes if code and code.co_filename.startswith(directory)})

def left(before):
    now = attributes()
    return changed(before, now) + of_adapters(now)

def state():
    "Return by library which modules are patched, and which could not be."
    found = {library: {"patched": [], "failures": {}, "layers": 0} for library in wanted}
    for (library, _), adapter in _instrumentor.adapters_in_use.items():
        found[library]["failures"].update(adapter.failures)
        found[library]["patched"] += adapter.layers
        found[library]["layers"] += sum(map(len, adapter.layers.values()))
    return found
"""

PROGRAMS = {
    "instrumented first": """
instrumentor.instrument()
import_all()
found, during = state(), attributes()
instrumentor.uninstrument()
print(json.dumps([imported, found, of_adapters(during), left([])]))
""",
    "imported first": """
import_all()
before = attributes()
instrumentor.instrument()
found, during = state(), attributes()
instrumentor.uninstrument()
print(json.dumps([imported, found, changed(before, during), left(before)]))
""",
}


@pytest.fixture(scope="module", params=PROGRAMS)
def found(request):
    """Return what was imported, the state of each adapter, and what was changed on, and off."""
    directory = str(Path(__file__).parent)
    program, modules = BEGINNING + PROGRAMS[request.param], json.dumps(MODULES)
    printed = run_program(program, directory, modules, timeout=LONGEST)
    return json.loads(printed.splitlines()[-1])


@every_adapter
def test_it_patches_the_library_in_both_orders_of_import(library, found):
    """Each of the modules that it is named for, in this version of the library."""
    imported, state, *_ = found
    modules = [module for module in MODULES[library] if module in imported]
    assert modules
    assert state[library]["failures"] == {}
    assert set(modules) <= set(state[library]["patched"])
    assert state[library]["layers"]


def test_undo_is_by_identity(found):
    """No attribute of any library's modules and classes is another than before."""
    *_, changed, left = found
    assert changed
    assert left == []
