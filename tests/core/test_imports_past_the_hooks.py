"""Modules that somebody else's finder loads, past the import hooks, are called back for as well."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder

import pytest

from otel_concurrency._core import imports
from otel_concurrency._core.imports import look_again, when_imported


class InFront:
    """A finder as pytest's: what it is about it finds and loads itself."""

    def __init__(self, *names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, path) if name in self.names else None


@pytest.fixture
def new_module(tmp_path, monkeypatch):
    """Return a function that makes a module which nobody has imported, and returns its name."""
    made = []

    def make(source=""):
        name = f"{tmp_path.name}_past_the_hooks_{len(made)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        made.append(name)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def in_front(monkeypatch):
    """Return a function that puts a finder for some modules in front of all others."""

    def put(*names):
        monkeypatch.setattr(sys, "meta_path", [InFront(*names), *sys.meta_path])

    return put


def test_the_next_import_finds_it(new_module, in_front):
    """However it is imported, one time, and when its code has run."""
    name, another = new_module("late = 'defined'"), new_module()
    seen = []
    when_imported(name, lambda module: seen.append(module.late))
    in_front(name)
    importlib.import_module(name)
    assert seen == []
    importlib.import_module(another)
    assert seen == ["defined"]
    importlib.import_module(new_module())
    assert seen == ["defined"]


def test_it_is_not_called_back_for_before_its_code_has_run(new_module, in_front):
    """An import in its midst is not the moment; the next one is, though nobody is in front then."""
    inner = new_module()
    name = new_module(f"import sys, {inner}\nsys.meta_path = sys.meta_path[1:]\nlate = 'defined'")
    seen = []
    when_imported(name, lambda module: seen.append(module.late))
    in_front(name)
    importlib.import_module(name)
    assert seen == []
    importlib.import_module(new_module())
    assert seen == ["defined"]


def test_it_is_found_when_it_is_looked_for(new_module, in_front):
    """By whoever asks; one that is found twice is called back for once."""
    name = new_module()
    seen = []
    when_imported(name, seen.append)
    in_front(name)
    module = importlib.import_module(name)
    assert look_again()
    assert look_again()
    assert seen == [module]


def test_a_module_that_is_loaded_at_its_first_use_stays_so(new_module):
    """To look at it does not load it."""
    name = new_module("raise LookupError('loaded')")
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    seen = []
    imports._on_import[name] = {"": seen.append}
    try:
        assert look_again()
    finally:
        del imports._on_import[name]
    assert seen == []


def test_the_order_of_the_finders_stays(new_module, in_front):
    """Whoever has put one in front finds it there, and can take it away again."""
    name = new_module()
    when_imported(name, id)
    in_front(name)
    before = list(sys.meta_path)
    importlib.import_module(name)
    importlib.import_module(new_module())
    assert sys.meta_path == before


def test_where_it_does_no_harm_the_hooks_are_put_first(new_module, in_front):
    """Then they see the very next module, and what was imported before is found."""
    before, name = new_module(), new_module()
    seen = []
    for one in (before, name):
        when_imported(one, seen.append)
    in_front(before, name)
    modules = [importlib.import_module(before)]
    others = [finder for finder in sys.meta_path if isinstance(finder, InFront)]
    imports.see_every_import()
    modules.append(importlib.import_module(name))
    assert seen == modules
    assert [finder for finder in sys.meta_path if isinstance(finder, InFront)] == others
    assert len(sys.meta_path) == len({id(finder) for finder in sys.meta_path})


def test_a_callback_that_raises_fails_no_import(new_module, in_front, caplog):
    """It is reported once, and what is imported is there."""
    name, another = new_module(), new_module()

    def refuse(_module):
        raise RuntimeError("no patching today")

    when_imported(name, refuse)
    in_front(name)
    importlib.import_module(name)
    assert importlib.import_module(another) is sys.modules[another]
    importlib.import_module(new_module())
    (record,) = caplog.records
    assert "no patching today" in record.getMessage()


def test_a_callback_may_import(new_module, in_front):
    """As the adapters' do."""
    name, inner = new_module(), new_module()
    seen = []
    when_imported(name, lambda _: seen.append(importlib.import_module(inner)))
    in_front(name)
    importlib.import_module(name)
    importlib.import_module(new_module())
    assert seen == [sys.modules[inner]]
