"""The house: who may import whom, and what a primitive consists of, read from the code itself."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from otel_concurrency import _adapters, _primitives, _settings, environment_variables

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
TESTS_OF_ADAPTERS = REPOSITORY / "tests" / "adapters"
PACKAGE = "otel_concurrency"
FILES = sorted((SOURCE / PACKAGE).rglob("*.py"))

API = "opentelemetry.context opentelemetry.propagate opentelemetry.trace opentelemetry.baggage"
STANDARD = sys.stdlib_module_names | {"_interpreters"}
"""The standard library's modules on all versions, not only on the one that runs this."""
COPIES = ("billiard", "multiprocess", "uvloop")
"""Libraries that do as modules of the standard library do, and have the advice for these."""


@dataclass(frozen=True)
class Layer:
    """A package or a group of modules, and what it may import of ours and of others.

    The layers stand in their order: each may import its own modules and those of the layers above
    that it names.
    """

    name: str
    modules: str
    ours: str = ""
    others: str = ""


def _package(name: str, ours: str = "", others: str = API) -> Layer:
    return Layer(name, f"{name} {name}.*", f"{name} {name}.* {ours}", others)


BELOW_ADVICE = (
    "_core.* _items.* _generators.* _linking.* _clean_starts.* _child_exit.* _settings _crossing.* "
    "environment_variables"
)

LAYERS = (
    Layer("facts", "version package environment_variables"),
    _package("_core", "environment_variables", others=f"{API} wrapt"),
    _package("_generators", "_core.*"),
    _package("_linking", "_core.*"),
    _package("_items", "_core.* _linking.*"),
    _package("_clean_starts", "_core.* _linking.*"),
    _package("_child_exit", "_core.*"),
    Layer("settings", "_settings", "environment_variables _core.* _linking.*", API),
    _package("_crossing", "_core.* _linking.* _settings", f"{API} opentelemetry.propagators"),
    Layer("configuration", "_configuration", "_settings _core.*", "opentelemetry.configuration"),
    _package(
        "_by_hand", "_core.* _items.* _linking.* _crossing.*", f"{API} opentelemetry.propagators"
    ),
    Layer(
        "metrics", "_metrics", "version _core.* _items.* _linking.*", f"{API} opentelemetry.metrics"
    ),
    Layer("orphans", "_orphans", "_core.* _linking.*", API),
    Layer(
        "primitives",
        "_primitives _primitives.*",
        f"{BELOW_ADVICE} _primitives._futures_map _primitives._multiprocessing._*",
        API,
    ),
    Layer(
        "adapters of copies of the standard library",
        " ".join(f"_adapters._{library}" for library in COPIES),
        f"{BELOW_ADVICE} _primitives._asyncio* _primitives._multiprocessing*",
        API,
    ),
    # Of the primitives, one that greenlets are told apart by asks the registry which there are.
    Layer("adapters", "_adapters _adapters.*", f"{BELOW_ADVICE} _primitives", API),
    Layer("official", "_official_threading", "_core.*", API),
    Layer("patched", "_patched", "_core.* _official_threading _primitives _adapters", API),
    Layer(
        "instrumentor",
        "_instrumentor",
        f"version package {BELOW_ADVICE} _configuration _official_threading _primitives _adapters "
        "_metrics _orphans _patched",
        f"{API} opentelemetry.instrumentation typing_extensions",
    ),
    _package(
        "_status",
        f"{BELOW_ADVICE} version _configuration _official_threading _primitives _adapters "
        "_instrumentor",
        f"{API} opentelemetry.sdk opentelemetry.instrumentation",
    ),
    _package("_trace_report", others=""),
    _package(
        "_observer",
        f"{BELOW_ADVICE} __init__ _primitives* _instrumentor _status.* _trace_report.*",
        f"{API} opentelemetry.sdk opentelemetry.util",
    ),
    Layer(
        "command",
        "__main__ _cli _cli.*",
        "version _cli* _observer.* _status.* _trace_report.*",
        "*",
    ),
    Layer(
        "testing",
        "testing pytest_plugin",
        "testing _instrumentor _settings _core.* _observer.* _trace_report.*",
        "*",
    ),
    Layer(
        "entrances",
        "__init__ _child",
        "version _instrumentor _linking.policies _by_hand _by_hand.handoffs _core.faults "
        "_primitives._multiprocessing._process",
    ),
)


class Import(NamedTuple):
    """One imported module or name."""

    name: str
    line: int
    lazy: bool
    """Inside a function, or for type checkers alone: importing the file does not import it."""


def module_name(path: Path) -> str:
    """Return the module's name inside the package; the package itself is `__init__`."""
    parts = path.relative_to(SOURCE / PACKAGE).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


MODULES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def imports(tree: ast.AST, *, lazy: bool = False) -> list[Import]:
    """Return what a module imports, by absolute names, with `from a import b` as `a.b`."""
    found = []
    for node in ast.iter_child_nodes(tree):
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = True
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found += [Import(f"{node.module}.{a.name}", node.lineno, inside) for a in node.names]
        else:
            found += imports(node, lazy=inside)
    return [one for one in found if not one.name.startswith("__future__.")]


def is_in(name: str, packages: str) -> bool:
    """Whether a dotted name is one of some packages, or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages.split())


def module_of_ours(name: str) -> str | None:
    """Return the module of ours that an imported name belongs to, or None for somebody else's."""
    if not is_in(name, PACKAGE):
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def matches(name: str, patterns: str) -> bool:
    """Whether a module's name is matched by one of some patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns.split())


def layer_of(module: str) -> Layer:
    """Return the first layer that has the module."""
    return next(layer for layer in LAYERS if matches(module, layer.modules))


def modules(patterns: str = "*", *, but: str = "") -> pytest.MarkDecorator:
    """Run a test for every module that is matched by one of some patterns."""
    names = [name for name in MODULES if matches(name, patterns) and not matches(name, but)]
    return pytest.mark.parametrize("module", names)


EDGES = "__init__ __main__ _child testing pytest_plugin _status* _trace_report* _observer* _cli*"
"""What a program does not run by itself: entrances, the command, and what looks at a program."""

FACTS = LAYERS[0].modules


def test_imports_are_found_in_every_form():
    """The reader of imports, on which this file rests, sees them wherever they stand."""
    source = """
from __future__ import annotations
import a, b.c as d
from e import f, g
if TYPE_CHECKING:
    import h
try:
    import i
except ImportError:
    pass
class Class:
    import j
    def method(self):
        from k import l
async def function():
    import m
"""
    assert {(one.name, one.lazy) for one in imports(ast.parse(source))} == {
        ("a", False),
        ("b.c", False),
        ("e.f", False),
        ("e.g", False),
        ("h", True),
        ("i", False),
        ("j", False),
        ("k.l", True),
        ("m", True),
    }


@modules()
def test_module_has_a_layer(module):
    """Every module belongs to one layer of the house; an adapter of a copy to two."""
    found = [layer.name for layer in LAYERS if matches(module, layer.modules)]
    assert len(found) == 1 or found == ["adapters of copies of the standard library", "adapters"]


@modules()
def test_module_imports_only_what_its_layer_may(module):
    """A layer imports what is below it, and of other packages what is its business."""
    layer = layer_of(module)
    for one in imports(MODULES[module]):
        ours = module_of_ours(one.name)
        if ours is not None:
            allowed = matches(ours, layer.ours)
        elif one.name.split(".")[0] in STANDARD:
            allowed = layer.name != "facts"
        else:
            allowed = layer.others == "*" or is_in(one.name, layer.others)
        assert allowed, f"{module}:{one.line}: {layer.name} may not import {one.name}"


@modules(but="_core.patching _core.imports")
def test_only_patching_and_import_hooks_import_wrapt(module):
    """How attributes are replaced is known in one place, and so is when modules are imported."""
    assert not [one for one in imports(MODULES[module]) if is_in(one.name, "wrapt")]


@modules(but=EDGES)
def test_nothing_but_an_edge_imports_an_edge(module):
    """What looks at a program from beside it is used by nothing inside."""
    for one in imports(MODULES[module]):
        ours = module_of_ours(one.name)
        assert ours is None or not matches(ours, EDGES), f"{module}:{one.line}"


@modules()
def test_sdk_and_rich_are_imported_when_they_are_used(module):
    """Extras are imported inside functions of the edges: without them the rest still works."""
    for one in imports(MODULES[module]):
        if is_in(one.name, "opentelemetry.sdk rich"):
            assert one.lazy, f"{module}:{one.line}"
            assert matches(module, EDGES), f"{module}:{one.line}"


@modules(but="_status* _observer* _cli*")
def test_nothing_that_programs_may_not_use_is_imported_with_us(module):
    """Importing the library imports none of the modules that it patches when they are imported."""
    for one in imports(MODULES[module]):
        unused = is_in(one.name, "asyncio concurrent multiprocessing sched subprocess")
        assert one.lazy or not unused, f"{module}:{one.line}"


@modules(
    but="_core.compiled _settings _configuration _crossing.environment _status* _observer* _cli*"
)
def test_only_four_read_the_environment(module):
    """Outside the command, `os.environ` is read for the settings, and as a carrier."""
    for node in ast.walk(MODULES[module]):
        name = getattr(node, "attr", None) or getattr(node, "id", None)
        reads = name in {"environ", "environb", "getenv", "getenvb"}
        assert not reads, f"{module}:{node.lineno}"


@modules(but="_cli.order_service")
def test_no_thread_is_made_known(module):
    """`threading.current_thread()` would show the program a thread that it has not asked for."""
    for node in ast.walk(MODULES[module]):
        assert getattr(node, "attr", None) != "current_thread", f"{module}:{node.lineno}"


@modules(FACTS)
def test_facts_are_literals(module):
    """The files that the command line's parent process loads define names, and do nothing."""
    for statement in MODULES[module].body:
        assert isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr)
        ast.literal_eval(statement.value)


@modules()
def test_module_says_why_it_exists(module):
    """Every module has a docstring."""
    assert ast.get_docstring(MODULES[module])


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_module_is_not_large(path):
    """A file that one person can hold in mind has at most 450 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


@pytest.mark.parametrize(
    "path",
    [*FILES, *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml"))],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_text_has_no_paths_of_a_machine(path):
    """What is published names no place on the machine where it was written."""
    machine = r"(?<![\w.])/(?:Users|etc|home|mnt|opt|root|srv|tmp|usr|var|work)\b"
    assert not re.findall(machine, path.read_text(encoding="utf-8"))


# --- the page that describes the house ---

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_file_that_the_page_names_exists():
    """Whoever looks for the place of a change finds it under the name that the page gives."""
    named = set(re.findall(r"`((?:_\w+/)?_?\w+\.py)`", PAGE))
    assert named
    missing = {name for name in named if not (SOURCE / PACKAGE / name).exists()}
    assert not missing


def test_the_page_describes_every_package():
    """A package without a line of its own in the table cannot be found by a newcomer."""
    packages = {path.parent.name for path in (SOURCE / PACKAGE).glob("*/__init__.py")}
    assert not {name for name in packages if f"`{name}/`" not in PAGE}


def test_the_glossary_is_short():
    """Readers learn at most a dozen words that are the project's own."""
    glossary = PAGE[PAGE.index("## Glossary") :]
    assert len(re.findall(r"^\| (?!word|---)", glossary, re.MULTILINE)) <= 12


# --- what a primitive consists of, and an adapter ---

primitives = pytest.mark.parametrize("name", _primitives.NAMES)


def test_files_of_primitives_are_the_recorded_ones():
    """Every file in `_primitives` is in FILES once, and everything in FILES has its file."""
    files = {
        name
        for name, tree in MODULES.items()
        if name.startswith("_primitives.") and "MODULES" in names_assigned(tree)
    }
    recorded = [f"_primitives.{file}" for files in _primitives.FILES.values() for file in files]
    assert sorted(files) == sorted(recorded)


def names_assigned(tree):
    """Return the names to which a module assigns something."""
    return {
        target.id
        for node in tree.body
        for target in getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    }


@pytest.mark.parametrize(
    ("file", "patched"),
    [(file, patched) for files in _primitives.FILES.values() for file, patched in files.items()],
)
def test_what_a_file_of_a_primitive_patches_is_recorded(file, patched):
    """The modules by whose import a file is imported are those that it patches."""
    module = importlib.import_module(f"{PACKAGE}._primitives.{file}")
    assert tuple(module.MODULES) == patched


@primitives
def test_primitive_says_what_it_patches(name):
    """A primitive maps modules of the standard library, or OpenTelemetry's, to its advice."""
    patched = _primitives.modules_of(name)
    assert patched
    for module, advice in patched.items():
        package = module.split(".")[0]
        assert package in sys.stdlib_module_names or package == "opentelemetry"
        assert callable(advice)


@primitives
def test_primitive_has_its_environment_constant(name):
    """A primitive can be set from the environment."""
    assert hasattr(environment_variables, _settings.variable(name))


@primitives
def test_primitive_has_its_row_on_the_page(name):
    """A primitive's setting stands in the table of what is carried."""
    page = (REPOSITORY / "docs" / "carried.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert [row for row in rows if _settings.variable(name) in row]


@primitives
def test_primitive_goes_through_the_conformance_suite(name):
    """A primitive has at least one form in the suite that all go through."""
    settings = {
        value.value
        for path in (REPOSITORY / "tests" / "conformance").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for target, value in named_values(node)
        if target == "setting" and isinstance(value, ast.Constant)
    }
    assert name in settings


adapters = pytest.mark.parametrize("library", _adapters.ADAPTERS)


def test_files_of_adapters_are_the_named_ones():
    """Every file in `_adapters` is of a named library, and every one of these has its file."""
    files = {name for name in MODULES if name.startswith("_adapters.")}
    assert files == {f"_adapters._{library}" for library in _adapters.ADAPTERS}


@adapters
def test_adapter_patches_what_it_is_named_for(library):
    """Its advice is for the modules that are waited for, and these are of no standard library."""
    first, last = _adapters.tested(library)
    assert first[0].isdigit()
    assert last[0].isdigit()
    for primitive, modules in _adapters.ADAPTERS[library].items():
        assert primitive in _primitives.NAMES
        for module in modules:
            assert callable(_adapters.advice(library, primitive, module))
            assert module.split(".")[0] not in sys.stdlib_module_names


@adapters
def test_adapter_has_its_row_on_the_page(library):
    """The library stands in the table of libraries; the versions there are generated."""
    page = (REPOSITORY / "docs" / "libraries.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith(f"| {library} |")]


@adapters
def test_adapter_has_its_tests(library):
    """They are where the gate runs them against the library itself; where it is not, none are."""
    file = f"test_{library}.py"
    assert (TESTS_OF_ADAPTERS / file).exists()
    assert file in keys_of("NEEDED", TESTS_OF_ADAPTERS / "conftest.py")


@adapters
def test_adapter_has_its_program_for_the_faults(library):
    """It is run while the adapter's functions are made to raise."""
    assert library in keys_of("PROGRAMS", REPOSITORY / "tests" / "faults" / "libraries.py")


def keys_of(table: str, file: Path) -> set[str]:
    """Return the keys of a dict that stands in a file under this name, without importing it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=keys))
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict(keys=keys))
            ) if name == table:
                return {ast.literal_eval(key) for key in keys if key is not None}
    raise AssertionError(f"{file} has no {table}")


@adapters
def test_adapter_is_tested_with_its_oldest_version(library):
    """What the gate installs for that is the first version that the page names, and so is dev's."""
    name = canonicalize_name(library)
    oldest = Version(_adapters.tested(library)[0])
    wanted = requirements(dev_adapters()).get(name)
    if wanted is not None:  # one of another name, such as Qt's, has several
        pinned = requirements((TESTS_OF_ADAPTERS / "oldest.txt").read_text("utf-8").splitlines())
        assert [*map(str, pinned[name].specifier)] == [f"=={_adapters.tested(library)[0]}"]
        assert {Version(one.version) for one in wanted.specifier if one.operator == ">="} == {
            oldest
        }


def dev_adapters() -> list[str]:
    """Return the lines of the extra by which the gate installs what adapters are for."""
    source = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (extra,) = re.findall(r"^dev-adapters = \[\n(.*?)^\]", source, re.MULTILINE | re.DOTALL)
    return re.findall(r'^    "([^"]*)"', extra, re.MULTILINE)


def requirements(lines: Iterable[str]) -> dict[str, Requirement]:
    """Return the requirements by the names of their packages."""
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in found}


def named_values(node: ast.AST) -> list[tuple[str | None, ast.expr | None]]:
    """Return the values that a node gives to names: by assignment, or as keywords of a call."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return [(name, value)]
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return [(name, value)]
        case ast.keyword(arg=name, value=value):
            return [(name, value)]
    return []
