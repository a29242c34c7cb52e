"""The list of private names that the library relies on is complete, and true of what is installed.

What counts as a use is read from the syntax trees: an attribute, an import, or a string that is
exactly a private name, as `Layer` and `getattr` are given it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import otel_concurrency
from otel_concurrency._core.private_name import PrivateName
from otel_concurrency._core.private_names import PRIVATE_NAMES

SOURCE = Path(otel_concurrency.__file__).parent
PRIVATE = re.compile(r"_[A-Za-z]\w*")

DOCUMENTED = {"_exit", "_getframe", "_getframemodulename", "_replace", "_thread"}
"""Names of `os`, `sys`, of named tuples and of a module, which Python's documentation describes."""

NEITHER = {
    ("_child_exit.after_fork", "_maxsize"): "urllib3's",
    ("_items.channels", "_state"): "anyio's",
    ("_items.pairing", "_nowait"): "the end of the names of methods",
    ("_core.frames", "_pytest"): "pytest's",
    ("_generators.drivers", "_pytest"): "pytest's",
    ("_generators.drivers", "_decorator"): "a name in a table, of whose generators are left alone",
    ("_by_hand.handoffs", "_context"): "the module's own class has it",
    ("_by_hand.handoffs", "_free"): "the module's own class has it",
    ("_cli.report", "_Fault"): "a type variable's own name",
    ("_core.handoff", "_function"): "`Call` has it",
    ("_instrumentor", "_instruments"): "the module `package` has it",
    ("_linking.rounds", "_begin_round"): "what stands for a round has it",
    ("_observer.flows", "_function"): "`Call` has it",
    ("_primitives._multiprocessing._executors", "_context"): "`Call` has it",
    ("_primitives._multiprocessing._executors", "_function"): "`Call` has it",
    ("_primitives._multiprocessing._pools", "_queue"): "the name of the module of `SimpleQueue`",
    ("_status.otlp", "_EXPORTER"): "the end of the names of variables",
    ("_status.otlp", "_PROTOCOL"): "the end of the names of variables",
    ("_status.otlp", "_exporter"): "the end of the names of entry points",
    ("testing", "_events"): "the module's own class has it",
}
"""What looks like a use of another's private name and is none, with the reason."""


def _module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


TREES = {_module_name(path): ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
TABLES = ("_clean_starts.table", "_clean_starts.libraries_", "_clean_starts.functions")
READ = {
    name: tree
    for name, tree in TREES.items()
    if not name.startswith(("_adapters", *TABLES)) and not name.startswith("_core.private_name")
}


def _members(tree: ast.AST) -> Iterator[str]:
    """Yield what the classes in ``tree`` define, in their bodies and on their instances."""
    for cls in ast.walk(tree):
        if isinstance(cls, ast.ClassDef):
            for node in cls.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield node.name
                elif isinstance(node, ast.AnnAssign):
                    yield ast.unparse(node.target)
                elif isinstance(node, ast.Assign):
                    yield from map(ast.unparse, node.targets)
            for node in ast.walk(cls):
                is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if is_set and ast.unparse(node.value) == "self":
                    yield node.attr


OWN_MEMBERS = {name for tree in TREES.values() for name in _members(tree)}


def _is_own_string(module: str, text: str) -> bool:
    """Whether a string names an attribute or a module that is this library's by its spelling."""
    return text.startswith("_otel_concurrency") or bool({text, f"{module}.{text}"} & TREES.keys())


def uses(module: str, tree: ast.AST, *, in_class: bool = False) -> Iterator[str]:
    """Yield the private names of others that a module uses; a prefix of names ends in `_`."""
    for node in ast.iter_child_nodes(tree):
        found: list[str] = []
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            continue
        if isinstance(node, ast.Attribute):
            of_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if not (in_class and of_self and node.attr in OWN_MEMBERS):
                found = [node.attr]
        elif isinstance(node, ast.Import):
            found = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            if not f"{node.module}.".startswith("otel_concurrency."):
                found = f"{node.module}".split(".") + [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_dotted = re.fullmatch(r"(opentelemetry|concurrent)(\.\w+)+", node.value)
            found = node.value.split(".") if is_dotted else [node.value]
        for name in found:
            is_private = PRIVATE.fullmatch(name) and name not in DOCUMENTED
            if is_private and not _is_own_string(module, name):
                yield name
        yield from uses(module, node, in_class=in_class or isinstance(node, ast.ClassDef))


USED = {module: set(uses(module, tree)) for module, tree in READ.items()}


def _last(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _covers(listed: str, used: str) -> bool:
    return listed == used or (used.endswith("_") and listed.startswith(used))


def test_each_form_of_use_is_found_and_own_names_are_not():
    """The reader on which these tests rest sees another's private name in every form."""
    source = """
from a._b import _c
import _d.e
class Own:
    __slots__ = ("_own",)
    def __init__(self, other):
        self._own = other._f
Layer(owner, "_g", f"_h_{name}")
vars(owner)["_i"] = "no _name", "__dunder__", "opentelemetry._j", "_otel_concurrency_k"
def replaced(self):
    return self._own, sys._getframe
"""
    OWN_MEMBERS.add("_own")
    try:
        found = sorted(uses("m", ast.parse(source)))
    finally:
        OWN_MEMBERS.discard("_own")
    assert found == ["_b", "_c", "_d", "_f", "_g", "_h_", "_i", "_j", "_own"]


@pytest.mark.parametrize("module", READ)
def test_each_private_name_that_is_used_is_listed(module: str):
    """A module uses no private name of another's that the list does not have for it."""
    listed = {
        _last(name) for name, entry in PRIVATE_NAMES.items() if module in entry.modules.split()
    }
    missing = {
        name
        for name in USED[module]
        if (module, name) not in NEITHER and not any(_covers(each, name) for each in listed)
    }
    assert not missing, f"_core/private_names.py lacks what {module} uses"


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_each_listed_name_is_used_where_the_list_says(name: str):
    """The list names no module that does not use the name, or that does not exist."""
    modules = PRIVATE_NAMES[name].modules.split()
    assert modules
    unused = [
        module
        for module in modules
        if not any(_covers(_last(name), used) for used in USED.get(module, ()))
    ]
    assert not unused, f"does not use {name}"


def test_each_exception_is_still_one():
    """No exception outlives the code that needed it."""
    assert [(module, name) for module, name in NEITHER if name not in USED[module]] == []


def _applies(entry: PrivateName) -> bool:
    is_for_version = entry.since <= sys.version_info[:2] < entry.until
    major, minor, *_ = version("opentelemetry-sdk").split(".")
    is_for_sdk = entry.since_sdk <= (int(major), int(minor))
    return is_for_version and is_for_sdk and (os.name == "posix" or not entry.only_posix)


HERE = [name for name, entry in PRIVATE_NAMES.items() if _applies(entry)]


def _resolve(dotted: str) -> Any:
    """Import the module in a dotted name, and return the object that it leads to."""
    parts = dotted.split(".")
    found: Any = importlib.import_module(parts[0])
    for at, part in enumerate(parts[1:], 2):
        if not hasattr(found, part) and inspect.ismodule(found):
            importlib.import_module(".".join(parts[:at]))
        found = getattr(found, part)
    return found


def _assigns(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == name and isinstance(node.ctx, ast.Store)
    # wrapt in pure Python sets it as `object.__setattr__(self, "_self_wrapper", wrapper)`.
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "object.__setattr__"
        and ast.unparse(node.args[1]) == repr(name)
    )


def _is_set_on_instances(owner: type, name: str) -> bool:
    """Whether the source of a class, or of one of its bases, assigns to the attribute."""
    sources = {inspect.getsourcefile(kind) for kind in owner.__mro__ if kind is not object}
    return any(
        _assigns(node, name)
        for source in sources
        if source is not None
        for node in ast.walk(ast.parse(Path(source).read_text("utf-8")))
    )


@pytest.mark.parametrize("name", HERE)
def test_each_listed_name_exists_in_what_is_installed(name: str):
    """On the Python and the OpenTelemetry that run this, what the library relies on is there."""
    owner, _, attribute = name.rpartition(".")
    if not owner:
        assert importlib.import_module(name)
        return
    parts = owner.split(".")
    if parts[:2] == ["opentelemetry", "instrumentation"] and len(parts) > 3:
        pytest.importorskip(".".join(parts[:3]), reason="an optional package")
    try:
        _resolve(name)
    except (AttributeError, ModuleNotFoundError):
        found = _resolve(owner)
        assert inspect.isclass(found)
        assert _is_set_on_instances(found, attribute)
