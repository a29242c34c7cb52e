"""Has the generators of a module of tests hold a span over each ``yield``.

The module's source is read, and the body of each generator function put into a ``with`` statement.
Without OpenTelemetry that holds nothing: what fails by the statement alone fails there, too.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys

_NAME = "_holding_a_span"


def load(name):
    """Import the module ``name`` so that its generators hold spans."""
    package, _, attribute = name.rpartition(".")
    importlib.import_module(package)
    spec = importlib.util.find_spec(name)
    spec.loader = _Loader(name, spec.origin)
    spec.cached = None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    setattr(module, _NAME, _what_holds())
    setattr(sys.modules[package], attribute, module)
    spec.loader.exec_module(module)


def _what_holds():
    try:
        from opentelemetry import trace
    except ImportError:
        return _Nothing
    tracer = trace.get_tracer(__name__)
    return lambda: tracer.start_as_current_span("generator")


class _Nothing:
    def __enter__(self):
        return None

    def __exit__(self, *error):
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        """Return the code of the source as it is here, without a look at what is cached."""
        tree = _Holding().visit(ast.parse(self.get_data(self.path), self.path))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


class _Holding(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        if not _yields(node):
            return node
        documented = ast.get_docstring(node, clean=False) is not None
        held = ast.With(
            items=[ast.withitem(ast.Call(ast.Name(_NAME, ast.Load()), [], []))],
            body=node.body[documented:] or [ast.Pass()],
        )
        node.body[documented:] = [ast.copy_location(held, node.body[-1])]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _yields(function):
    """Whether a function is a generator: itself, not one that it defines."""
    nodes = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(node, _SCOPES):
            nodes += ast.iter_child_nodes(node)
    return False
