"""Reads from a module's source which threads and tasks it starts, without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

THREADS = ("Thread", "Timer")
TASKS = ("create_task", "ensure_future", "start_soon")
WORDS = (*THREADS, *TASKS, "start_new")
RUNS_FOR_EVER = ("serve_forever", "run_forever", "loop_forever")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Start:
    """A place where a thread or a task is started, or a class of threads."""

    kind: str
    """"thread", "task" or "class"."""
    name: str
    """What it runs, as a table would name it; with ``?`` where the source does not tell."""
    line: int
    loops: bool | None
    """Whether what it runs has a loop of its own; None where that is not in the same module."""


class Module:
    """One module's source."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name = name
        self._tree = tree
        self._functions: dict[str, Function] = {}
        self.classes: dict[str, list[str]] = {}
        """By qualified name: the last parts of the names of a class's bases."""
        self._starts: list[Start] = []
        self._index(tree, "")

    def starts(self, thread_classes: frozenset[str]) -> list[Start]:
        """Return what it starts; ``thread_classes`` are the names of classes of threads."""
        self._starts = []
        for name, bases in self.classes.items():
            if thread_classes.intersection(bases):
                run = self._functions.get(f"{name}.run")
                self._add("class", name, run.lineno if run else 0, run)
        self._visit(self._tree, "", thread_classes)
        return self._starts

    def _index(self, node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, FUNCTIONS):
                self._functions[prefix + child.name] = child
                self._index(child, f"{prefix}{child.name}.<locals>.")
            elif isinstance(child, ast.ClassDef):
                self.classes[prefix + child.name] = [_last(base) for base in child.bases]
                self._index(child, f"{prefix}{child.name}.")
            else:
                self._index(child, prefix)

    def _visit(self, node: ast.AST, prefix: str, thread_classes: frozenset[str]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, FUNCTIONS):
                self._visit(child, f"{prefix}{child.name}.<locals>.", thread_classes)
                continue
            if isinstance(child, ast.ClassDef):
                self._visit(child, f"{prefix}{child.name}.", thread_classes)
                continue
            if isinstance(child, ast.Call):
                self._call(child, prefix, thread_classes)
            self._visit(child, prefix, thread_classes)

    def _call(self, call: ast.Call, prefix: str, thread_classes: frozenset[str]) -> None:
        called = _last(call.func)
        if called in thread_classes or called in ("start_new_thread", "start_new"):
            target = _target(call, called)
            if target is not None:
                self._start("thread", target, call.lineno, prefix)
        elif called in TASKS and call.args:
            coroutine = call.args[0]
            if called != "start_soon":
                if not isinstance(coroutine, ast.Call):
                    return
                coroutine = coroutine.func
            self._start("task", coroutine, call.lineno, prefix)

    def _start(self, kind: str, target: ast.expr, line: int, prefix: str) -> None:
        while isinstance(target, ast.Call) and _last(target.func) == "partial" and target.args:
            target = target.args[0]
        if isinstance(target, ast.Lambda):
            name = f"{prefix}<lambda>"
        elif isinstance(target, ast.Name):
            name = self._named(target.id, prefix) or f"?.{target.id}"
        elif isinstance(target, ast.Attribute) and _last(target.value) in ("self", "cls"):
            name = f"{_class_of(prefix)}.{target.attr}"
        else:
            name = f"?.{_last(target)}"
        self._add(kind, name, line, self._functions.get(name))

    def _named(self, name: str, prefix: str) -> str | None:
        """Return the qualified name of what ``name`` is in a scope, if it is defined here."""
        parts = prefix.split(".")
        for length in range(len(parts), -1, -1):
            found = ".".join([*parts[:length], name]).replace("..", ".").lstrip(".")
            if found in self._functions or found in self.classes:
                return found
        return None

    def _add(self, kind: str, name: str, line: int, function: Function | None) -> None:
        loops = None if function is None else any(_loops(node) for node in ast.walk(function))
        known = name if name.startswith("?") else f"{self.name}.{name}"
        self._starts.append(Start(kind, known, line, loops))


def _class_of(prefix: str) -> str:
    """Return the class in one of whose methods, or a function in that, a scope is."""
    method = prefix.partition("<locals>")[0].rstrip(".")
    return method.rpartition(".")[0]


def _loops(node: ast.AST) -> bool:
    if isinstance(node, ast.While | ast.AsyncFor):
        return True
    return isinstance(node, ast.Call) and _last(node.func) in RUNS_FOR_EVER


def _target(call: ast.Call, called: str) -> ast.expr | None:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if called.startswith("start_new"):
        return call.args[0] if call.args else None
    if "Timer" in called:
        return call.args[1] if len(call.args) > 1 else named.get("function")
    return call.args[1] if len(call.args) > 1 else named.get("target")


def _last(node: ast.AST) -> str:
    """Return the last part of a dotted name, also of one that is subscripted."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def parse(path: Path, name: str) -> Module | None:
    """Return the module in a file; None where it starts nothing, or is for another Python."""
    try:
        text = path.read_text(encoding="utf-8")
        if not any(word in text for word in WORDS):
            return None
        return Module(name, ast.parse(text))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None


def starts_of(modules: list[Module]) -> Iterator[tuple[Module, Start]]:
    """Yield what the modules of one distribution start, by classes of each other, too."""
    thread_classes = set(THREADS)
    classes = [(name, bases) for module in modules for name, bases in module.classes.items()]
    while (
        found := {
            name.rpartition(".")[2] for name, bases in classes if thread_classes.intersection(bases)
        }
        - thread_classes
    ):
        thread_classes |= found
    for module in modules:
        for start in module.starts(frozenset(thread_classes)):
            yield module, start
