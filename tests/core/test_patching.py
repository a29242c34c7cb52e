"""Patching: what is replaced, and that it is put back exactly."""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import pickle
import sys
import threading
import types
from _thread import start_new_thread

import pytest
import wrapt

from otel_concurrency._core.imports import when_imported
from otel_concurrency._core.patching import (
    Layer,
    StandIn,
    apply_all,
    family,
    undo_all,
    wrap_builtin,
)


class Base:
    def method(self):
        return "base"

    inherited = method

    @staticmethod
    def static():
        return "static"

    @classmethod
    def class_method(cls):
        return cls.__name__

    @property
    def prop(self):
        return "property"


@pytest.fixture
def owner():
    """Return a class with a method of its own and with inherited attributes."""

    class Owner(Base):
        def method(self):
            return "plain"

        static = vars(Base)["static"]
        class_method = vars(Base)["class_method"]
        prop = vars(Base)["prop"]

    return Owner


def wrap(original):
    """Wrap a plain function as our advice does: by a plain function with `__wrapped__`."""

    @functools.wraps(original)
    def replacement(*args, **kwargs):
        return f"ours({original(*args, **kwargs)})"

    return replacement


def wrap_by_closure(original):
    """Wrap as somebody who does not use `functools.wraps`."""

    def theirs(*args, **kwargs):
        return f"theirs({original(*args, **kwargs)})"

    return theirs


def wrap_by_functools(original):
    """Wrap as a decorator does."""
    return functools.wraps(original)(wrap_by_closure(original))


def wrap_by_wrapt(original):
    """Wrap as most instrumentation libraries do."""

    def theirs(wrapped, _instance, args, kwargs):
        return f"theirs({wrapped(*args, **kwargs)})"

    return wrapt.FunctionWrapper(original, theirs)


def wrap_by_nested_closure(original):
    """Wrap as somebody whose wrapper reaches the original through a helper of its own."""

    def call(*args, **kwargs):
        return original(*args, **kwargs)

    def theirs(*args, **kwargs):
        return f"theirs({call(*args, **kwargs)})"

    return theirs


foreign = pytest.mark.parametrize(
    "patch", [wrap_by_closure, wrap_by_functools, wrap_by_wrapt, wrap_by_nested_closure]
)


def test_replaces_and_restores_a_method(owner):
    """The attribute is the replacement while the layer is on, and the original afterwards."""
    before = dict(vars(owner))
    layer = Layer(owner, "method", wrap)
    layer.apply()
    assert owner().method() == "ours(plain)"
    layer.undo()
    assert dict(vars(owner)) == before
    assert vars(owner)["method"] is before["method"]


@pytest.mark.parametrize("name", ["method", "static", "class_method", "prop"])
def test_wrap_gets_and_undo_restores_the_raw_attribute(owner, name):
    """Static methods, class methods and properties are taken and put back unbound, by identity."""
    raw = vars(owner)[name]
    given = []
    layer = Layer(owner, name, lambda original: given.append(original) or "replacement")
    layer.apply()
    assert vars(owner)[name] == "replacement"
    layer.undo()
    assert given == [raw]
    assert given[0] is raw
    assert vars(owner)[name] is raw


@pytest.mark.parametrize("name", ["inherited", "__repr__"])
def test_undo_of_an_inherited_attribute_deletes_it(owner, name):
    """Where the owner inherited the name, undo leaves it inherited, and the base untouched."""
    before, base_before = dict(vars(owner)), dict(vars(Base))
    layer = Layer(owner, name, wrap)
    layer.apply()
    assert getattr(owner(), name)().startswith("ours(")
    layer.undo()
    assert dict(vars(owner)) == before
    assert dict(vars(Base)) == base_before


def test_replaces_and_restores_a_function_of_a_module():
    """A module is an owner as a class is."""
    module = types.ModuleType("throw_away")
    module.function = function = lambda: "plain"
    layer = Layer(module, "function", wrap)
    layer.apply()
    assert module.function() == "ours(plain)"
    layer.undo()
    assert module.function is function


@pytest.mark.parametrize("throw_away", [type("Owner", (), {}), types.ModuleType("throw_away")])
def test_missing_attribute_is_an_error(throw_away):
    """Where there is nothing to replace, apply raises, and nothing was added."""
    before = dict(vars(throw_away))
    with pytest.raises(AttributeError, match="no_such_thing"):
        Layer(throw_away, "no_such_thing", wrap).apply()
    assert dict(vars(throw_away)) == before


def test_attribute_that_is_none_is_an_attribute():
    """None is a value as any other: it is replaced, and put back."""
    module = types.ModuleType("throw_away")
    module.setting = None
    layer = Layer(module, "setting", lambda original: (original, "ours"))
    layer.apply()
    assert module.setting == (None, "ours")
    layer.undo()
    assert module.setting is None


def test_apply_twice_is_applied_once(owner):
    """A layer that is on is not stacked on itself."""
    original = vars(owner)["method"]
    layer = Layer(owner, "method", wrap)
    layer.apply()
    layer.apply()
    assert owner().method() == "ours(plain)"
    layer.undo()
    assert vars(owner)["method"] is original


def test_undo_without_apply_is_nothing(owner):
    """Undoing what was not applied, or was undone before, changes nothing."""
    before = dict(vars(owner))
    layer = Layer(owner, "method", wrap)
    layer.undo()
    assert dict(vars(owner)) == before
    layer.apply()
    layer.undo()
    layer.undo()
    assert dict(vars(owner)) == before


@pytest.mark.parametrize("rounds", [2, 20])
def test_rounds_of_apply_and_undo_do_not_pile_up(owner, rounds):
    """Every round wraps the original anew, and puts the original back."""
    original = vars(owner)["method"]
    layer = Layer(owner, "method", wrap)
    for _ in range(rounds):
        layer.apply()
        assert owner().method() == "ours(plain)"
        layer.undo()
        assert vars(owner)["method"] is original


def test_what_was_replaced_before_is_replaced_by_the_same_again(owner):
    """A test may switch the library on and off a thousand times; another original is another."""
    made = []

    def counting(original):
        made.append(original)
        return wrap(original)

    layer = Layer(owner, "method", counting)
    original, replacements = vars(owner)["method"], set()
    for _ in range(3):
        layer.apply()
        replacements.add(vars(owner)["method"])
        layer.undo()
        assert vars(owner)["method"] is original
    assert len(replacements) == 1
    other = owner.method = lambda self: "other"
    layer.apply()
    assert owner().method() == "ours(other)"
    layer.undo()
    assert made == [original, other]


@foreign
def test_undo_under_somebody_elses_patch_leaves_the_chain(owner, patch):
    """Where somebody has patched over ours, undo leaves both where they are."""
    layer = Layer(owner, "method", wrap)
    layer.apply()
    owner.method = theirs = patch(vars(owner)["method"])
    layer.undo()
    assert vars(owner)["method"] is theirs
    assert owner().method() == "theirs(ours(plain))"


@foreign
def test_buried_layer_is_revived_not_stacked(owner, patch):
    """Applying a layer that is buried under another patch finds it there, however often."""
    layer = Layer(owner, "method", wrap)
    layer.apply()
    owner.method = patch(vars(owner)["method"])
    for _ in range(3):
        layer.undo()
        layer.apply()
    assert owner().method() == "theirs(ours(plain))"


@pytest.mark.parametrize("depth", [1, 5, 20])
def test_layer_is_found_deep_in_the_chain(owner, depth):
    """A layer is found under several patches of every kind."""
    layer = Layer(owner, "method", wrap)
    layer.apply()
    kinds = itertools.cycle([wrap_by_closure, wrap_by_functools, wrap_by_wrapt])
    for patch in itertools.islice(kinds, depth):
        owner.method = patch(vars(owner)["method"])
    layer.undo()
    layer.apply()
    assert owner().method() == "theirs(" * depth + "ours(plain)" + ")" * depth


@foreign
def test_buried_layer_is_undone_once_it_is_on_top_again(owner, patch):
    """When the other patch goes away in its turn, undo restores the original."""
    original = vars(owner)["method"]
    layer = Layer(owner, "method", wrap)
    layer.apply()
    ours = vars(owner)["method"]
    owner.method = patch(ours)
    layer.undo()
    owner.method = ours
    layer.undo()
    assert vars(owner)["method"] is original


def test_layer_under_a_layer_goes_with_the_one_on_top(owner):
    """What was undone while another layer was over it is undone when that one is."""
    original = vars(owner)["method"]
    lower, upper = Layer(owner, "method", wrap), Layer(owner, "method", wrap)
    lower.apply()
    upper.apply()
    lower.undo()
    assert owner().method() == "ours(ours(plain))"
    upper.undo()
    assert vars(owner)["method"] is original


def test_layer_under_a_layer_stays_if_it_is_applied_again(owner):
    """The end of the layer on top leaves one that is in use."""
    lower, upper = Layer(owner, "method", wrap), Layer(owner, "method", wrap)
    lower.apply()
    upper.apply()
    lower.undo()
    lower.apply()
    upper.undo()
    assert owner().method() == "ours(plain)"
    lower.undo()
    assert owner().method() == "plain"


def test_layer_that_is_not_found_is_stacked_anew(owner):
    """Where the patch on top hides ours for good, applying makes a new layer over it."""
    layer = Layer(owner, "method", wrap)
    layer.apply()

    class Opaque:
        __slots__ = ("hidden",)

        def __call__(self):
            return f"opaque({self.hidden(None)})"

    opaque = Opaque()
    opaque.hidden = vars(owner)["method"]
    owner.method = opaque
    layer.undo()
    assert vars(owner)["method"] is opaque
    layer.apply()
    assert owner.method() == "ours(opaque(ours(plain)))"
    layer.undo()
    assert vars(owner)["method"] is opaque


def test_original_restored_over_us_is_patched_anew(owner):
    """Where somebody has put the raw original back over ours, applying patches it again."""
    original = vars(owner)["method"]
    layer = Layer(owner, "method", wrap)
    layer.apply()
    owner.method = original
    layer.undo()
    assert vars(owner)["method"] is original
    layer.apply()
    assert owner().method() == "ours(plain)"
    layer.undo()
    assert vars(owner)["method"] is original


def test_undo_does_not_bring_back_a_deleted_attribute(owner):
    """Where somebody has deleted the attribute, undo does not put anything in its place."""
    layer = Layer(owner, "method", wrap)
    layer.apply()
    del owner.method
    layer.undo()
    assert "method" not in vars(owner)


def test_chain_that_is_a_circle_ends(owner):
    """Wrappers that refer to each other in a circle do not keep apply from ending."""
    layer = Layer(owner, "method", wrap)
    layer.apply()

    def one():
        return two

    def two():
        return one

    one.__wrapped__ = two
    two.__wrapped__ = one
    owner.method = one
    layer.undo()
    layer.apply()
    assert vars(owner)["method"].__wrapped__ is one


def test_apply_all_applies_all(owner):
    """Every layer is on afterwards, and off after undo_all."""
    before = dict(vars(owner))
    layers = [Layer(owner, "method", wrap), Layer(owner, "inherited", wrap)]
    apply_all(layers)
    assert (owner().method(), owner().inherited()) == ("ours(plain)", "ours(base)")
    undo_all(layers)
    assert dict(vars(owner)) == before


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_apply_all_is_all_or_nothing(owner, position, fault):
    """Where one layer cannot be applied, none is, and the fault is raised."""
    before = dict(vars(owner))

    def refuse(_original):
        raise fault

    layers = [Layer(owner, "method", wrap), Layer(owner, "inherited", wrap)]
    layers.insert(position, Layer(owner, "static", refuse))
    with pytest.raises(fault):
        apply_all(layers)
    assert dict(vars(owner)) == before


def test_undo_all_undoes_the_last_first(owner):
    """Two layers on one attribute are taken off in the reverse order."""
    before = dict(vars(owner))
    layers = [Layer(owner, "method", wrap), Layer(owner, "method", wrap_by_functools)]
    apply_all(layers)
    assert owner().method() == "theirs(ours(plain))"
    undo_all(layers)
    assert dict(vars(owner)) == before


@pytest.fixture
def wrapped_len():
    """Return `len`, wrapped by advice that doubles the result."""
    return wrap_builtin(len, lambda builtin, args, kwargs: 2 * builtin(*args, **kwargs))


def test_wrapped_builtin_goes_through_the_advice(wrapped_len):
    """The advice is given the builtin itself and the arguments as they were passed."""
    assert wrapped_len([1, 2]) == 4
    with pytest.raises(TypeError, match="argument"):
        wrapped_len()


def test_wrapped_builtin_looks_like_the_builtin(wrapped_len):
    """Name, documentation and type are the builtin's."""
    assert wrapped_len.__name__ == "len"
    assert wrapped_len.__doc__ == len.__doc__
    assert isinstance(wrapped_len, type(len))


def test_wrapped_builtin_does_not_bind(wrapped_len):
    """As a class attribute it stays unbound, as a builtin does and a function does not."""

    class Owner:
        length = wrapped_len

    assert Owner().length([1]) == 2


def test_wrapped_builtin_is_found_in_a_chain():
    """A wrapped builtin under somebody else's patch is revived as any other layer."""
    module = types.ModuleType("throw_away")
    module.length = len
    layer = Layer(module, "length", lambda raw: wrap_builtin(raw, lambda f, a, k: f(*a, **k) + 10))
    layer.apply()
    module.length = wrap_by_closure(module.length)
    layer.undo()
    layer.apply()
    assert module.length([]) == "theirs(10)"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_wrapped_builtin_pickles_by_name(protocol, monkeypatch):
    """In its place, a wrapped builtin pickles to its name, and so to the builtin elsewhere."""
    wrapped = wrap_builtin(start_new_thread, lambda builtin, args, kwargs: builtin(*args))
    monkeypatch.setattr("_thread.start_new_thread", wrapped)
    pickled = pickle.dumps(wrapped, protocol)
    assert pickle.loads(pickled) is wrapped
    monkeypatch.undo()
    assert pickle.loads(pickled) is start_new_thread


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_wrapped_builtin_copies_to_itself(wrapped_len, duplicate):
    """Copying it gives the same object, as copying a builtin does."""
    assert duplicate(wrapped_len) is wrapped_len


class Plain:
    """A class that another one stands in for."""

    class Inner:
        """A class inside a class."""


class Derived(Plain):
    """A user's class that was derived before anybody stood in."""


def stand_in(plain):
    """Return a class that stands in for another one, under its name."""
    return StandIn(
        plain.__name__, (plain,), {"stands_in_for": plain, "__module__": plain.__module__}
    )


def test_stand_in_counts_every_instance_as_its_own():
    """Instances and subclasses from before are those of the stand-in too, and others are not."""
    ours = stand_in(Plain)
    for instance in (Plain(), Derived(), ours()):
        assert isinstance(instance, ours)
        assert isinstance(instance, Plain)
    for cls in (Plain, Derived, ours):
        assert issubclass(cls, ours)
    assert not isinstance(object(), ours)
    assert not issubclass(object, ours)


@pytest.mark.parametrize("depth", [1, 3])
def test_stand_in_is_found_under_somebody_elses_subclass(depth):
    """Applying it again adds no other, and when they have taken theirs away undo is exact."""
    module = types.ModuleType("module")
    module.Class = Plain
    layer = Layer(module, "Class", stand_in)
    layer.apply()
    ours = module.Class
    for _ in range(depth):
        module.Class = type("Theirs", (module.Class,), {})
    theirs = module.Class
    for _ in range(3):
        layer.undo()
        assert module.Class is theirs
        layer.apply()
        assert module.Class is theirs
    assert sum("stands_in_for" in vars(base) for base in theirs.__mro__) == 1

    module.Class = ours
    layer.undo()
    assert module.Class is Plain


def test_stand_ins_of_two_do_not_pile_up():
    """Of two that come and go in any order there is never more than one each, and none is left."""
    module = types.ModuleType("module")
    module.Class = Plain
    one, other = Layer(module, "Class", stand_in), Layer(module, "Class", stand_in)
    one.apply()
    for _ in range(3):
        other.apply()
        one.undo()
        one.apply()
        assert sum("stands_in_for" in vars(base) for base in module.Class.__mro__) == 2
        other.undo()
        assert sum("stands_in_for" in vars(base) for base in module.Class.__mro__) == 1
    other.apply()
    one.undo()
    other.undo()
    assert module.Class is Plain


def test_subclass_of_a_stand_in_is_a_class_as_any_other():
    """What the user derives from the stand-in does not count others' instances as its own."""
    ours = stand_in(Plain)

    class Users(ours):
        """A user's class."""

    assert isinstance(Users(), ours)
    assert isinstance(Users(), Plain)
    assert issubclass(Users, ours)
    for instance in (Plain(), Derived(), ours()):
        assert not isinstance(instance, Users)
    assert not issubclass(ours, Users)
    assert Users.__qualname__.endswith(".<locals>.Users")
    assert Users.__doc__ == "A user's class."
    assert Users.__module__ == __name__


@pytest.mark.parametrize("plain", [Plain, Plain.Inner])
def test_stand_in_looks_like_what_it_stands_in_for(plain):
    """Its names and documentation are those of the class."""
    ours = stand_in(plain)
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        assert getattr(ours, attribute) == getattr(plain, attribute)
    assert repr(ours) == repr(plain)


@pytest.fixture
def new_module(tmp_path, monkeypatch):
    """Return a function that makes an importable module with a name of its own."""
    made = []

    def make(source="value = 1"):
        name = f"throw_away_{tmp_path.name}_{len(made)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        made.append(name)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_a_family_is_in_the_order_in_which_its_classes_were_made():
    """Whatever their places in memory: what is done to them is the same in each process."""

    class Base:
        pass

    children = [type(f"Child{number}", (Base,), {}) for number in range(30)]
    grandchildren = [type(f"Of{child.__name__}", (child,), {}) for child in children]
    assert family(Base) == [Base, *children, *grandchildren]


def test_imported_module_is_called_back_at_once(new_module):
    """Where the module is imported already, the callback is called before when_imported returns."""
    name = new_module()
    module = importlib.import_module(name)
    seen = []
    when_imported(name, seen.append)
    assert seen == [module]


def test_module_is_called_back_when_it_is_imported(new_module):
    """Nothing is imported on our account; the program's import calls the callback, once."""
    name = new_module()
    seen = []
    when_imported(name, seen.append)
    assert not seen
    assert name not in sys.modules
    module = importlib.import_module(name)
    assert importlib.import_module(name) is module
    assert seen == [module]


def test_module_is_complete_when_it_is_called_back(new_module):
    """The callback sees what the module's code has defined."""
    name = new_module("late = 'defined'")
    seen = []
    when_imported(name, lambda module: seen.append(module.late))
    importlib.import_module(name)
    assert seen == ["defined"]


def test_later_callback_replaces_the_earlier_one(new_module):
    """Only the last callback given for a module is called, and one time."""
    name = new_module()
    first, second = [], []
    when_imported(name, first.append)
    when_imported(name, second.append)
    module = importlib.import_module(name)
    assert first == []
    assert second == [module]


def test_callback_after_the_import_is_called_at_once_again(new_module):
    """For a module that is imported, every new callback is called at once."""
    name = new_module()
    module = importlib.import_module(name)
    first, second = [], []
    when_imported(name, first.append)
    when_imported(name, second.append)
    assert first == second == [module]


def test_hook_is_registered_once(new_module, monkeypatch):
    """Hooks cannot be taken back: there is one a module, however often we are switched on."""
    registered = []
    register = wrapt.register_post_import_hook

    def note(hook, name):
        registered.append(name)
        register(hook, name)

    monkeypatch.setattr(wrapt, "register_post_import_hook", note)
    name, other = new_module(), new_module()
    for _ in range(5):
        when_imported(name, id)
    when_imported(other, id)
    importlib.import_module(name)
    when_imported(name, id)
    assert registered == [name, other]


@pytest.mark.parametrize("imported_before", [True, False])
def test_raising_callback_does_not_fail_the_import(new_module, caplog, imported_before):
    """A callback that raises is reported, and the program's own import goes through."""
    name = new_module()

    def refuse(_module):
        raise RuntimeError("no patching today")

    if imported_before:
        importlib.import_module(name)
        when_imported(name, refuse)
    else:
        when_imported(name, refuse)
        assert importlib.import_module(name).value == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert name in record.getMessage()
    assert "no patching today" in record.getMessage()


def test_raising_module_raises_its_own_exception(new_module):
    """A module that fails to import fails as it does without us, and is not called back."""
    name = new_module("raise LookupError('its own')")
    seen = []
    when_imported(name, seen.append)
    with pytest.raises(LookupError, match="its own"):
        importlib.import_module(name)
    assert not seen


def test_module_imported_in_another_thread_is_called_back(new_module):
    """The import may happen in any thread."""
    name = new_module()
    seen = []
    when_imported(name, seen.append)
    thread = threading.Thread(target=importlib.import_module, args=(name,))
    thread.start()
    thread.join(30)
    assert seen == [sys.modules[name]]
