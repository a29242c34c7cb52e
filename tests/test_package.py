"""The package: what is published, and that importing it costs next to nothing."""

from __future__ import annotations

import configparser
import email.parser
import importlib
import inspect
import json
import os
import pickle
import pydoc
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

import otel_concurrency
from otel_concurrency import _instrumentor, environment_variables
from otel_concurrency._by_hand import handoffs
from otel_concurrency._linking import policies

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"


def run(*command, cwd=None, env=None):
    """Run a command to its end; return what it printed."""
    return ended(*command, cwd=cwd, env=env).stdout


def ended(*command, cwd=None, env=None):
    """Run a command to its end."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def build(target, directory, **env):
    """Build a distribution of the working tree; return its one file, and what is said about it."""
    command = (sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory)
    said = ended(*command, cwd=REPOSITORY, env=env).stderr
    (built,) = directory.iterdir()
    return built, [line for line in said.splitlines() if "pure Python" in line]


PURE = {"OTEL_PYTHON_CONCURRENCY_PURE_PYTHON": "1"}
NOT_PACKED = (".c", ".h", ".so", ".pyd")
"""The source of the compiled part, and what was built of it for interpreters of this tree."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the built wheel, in pure Python."""
    built, _ = build("wheel", tmp_path_factory.mktemp("wheel"), **PURE)
    with zipfile.ZipFile(built) as opened:
        yield opened


@pytest.fixture(scope="module")
def dist_info(wheel):
    """Return a function that reads a file of the wheel's metadata."""
    version = otel_concurrency.__version__

    def read(name):
        return wheel.read(f"otel_concurrency-{version}.dist-info/{name}").decode()

    return read


@pytest.fixture(scope="module")
def metadata(dist_info):
    """Return the wheel's core metadata."""
    return email.parser.Parser().parsestr(dist_info("METADATA"))


def test_wheel_has_the_package_and_nothing_else(wheel):
    """The wheel holds every file of the package, the type marker among them, and metadata."""
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "otel_concurrency").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in NOT_PACKED
    }
    assert "otel_concurrency/py.typed" in packed


def test_wheel_is_for_every_platform(dist_info):
    """The wheel is pure Python where that is asked for."""
    assert "Tag: py3-none-any" in dist_info("WHEEL")


@pytest.mark.parametrize(
    "env", [{}, PURE, {"CC": "no-such-compiler"}], ids=["as it is", "pure", "no compiler"]
)
def test_wheel_is_for_the_interpreters_that_can_use_what_is_in_it(tmp_path, env):
    """It has one compiled module and a tag for it, or none and one line that says why."""
    built, said = build("wheel", tmp_path, **env)
    with zipfile.ZipFile(built) as opened:
        names = opened.namelist()
    compiled = [name for name in names if name.endswith(NOT_PACKED)]
    if said or env:
        assert built.name.endswith("-py3-none-any.whl")
        assert compiled == []
        assert len(said) == 1
    else:
        (module,) = compiled
        assert Path(module).name == f"_compiled{sysconfig.get_config_var('EXT_SUFFIX')}"
        assert "none-any" not in built.name


def test_wheel_has_its_licence(metadata, dist_info):
    """The licence is named, and its text is packed."""
    assert metadata["License-Expression"] == "Apache-2.0"
    assert dist_info("licenses/LICENSE") == (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


def test_wheel_has_the_version_and_the_readme(metadata):
    """Name, version, Python versions and description are those of the tree."""
    assert metadata["Name"] == "otel-concurrency"
    assert metadata["Version"] == otel_concurrency.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    description = metadata.get_payload()
    assert [*_headings(description)] == [*_headings(readme)]


def _headings(text):
    return re.findall(r"^## .*$", text, re.MULTILINE)


def test_description_can_be_used_without_a_checkout(metadata):
    """On PyPI the README links to no file of the repository, and installs what is published."""
    description = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    assert "python -m pip install 'otel-concurrency[cli]' opentelemetry-distro" in description
    assert "checkout" not in description
    assert "`docs/` of the source distribution" in description


def test_library_has_three_dependencies(metadata):
    """At run time the library needs three packages; everything else is an extra."""
    required = [one for one in metadata.get_all("Requires-Dist") if "extra ==" not in one]
    names = {re.match(r"[\w-]+", one).group() for one in required}
    assert names == {"opentelemetry-api", "opentelemetry-instrumentation", "wrapt"}
    assert len(required) == 3
    assert {"cli", "dev"} <= set(metadata.get_all("Provides-Extra"))


def test_wheel_has_its_entry_points(dist_info):
    """The instrumentor, the settings and the command are found by those who look for them."""
    points = configparser.ConfigParser()
    points.read_string(dist_info("entry_points.txt"))
    assert {name: dict(points[name]) for name in points.sections()} == {
        "console_scripts": {"otel-concurrency": "otel_concurrency._cli:main"},
        "opentelemetry_instrumentor": {"concurrency": "otel_concurrency:ConcurrencyInstrumentor"},
        "opentelemetry_environment_variables": {
            "concurrency": "otel_concurrency.environment_variables"
        },
        "pytest11": {"otel_concurrency": "otel_concurrency.pytest_plugin"},
    }


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("opentelemetry_instrumentor", _instrumentor.ConcurrencyInstrumentor),
        ("opentelemetry_environment_variables", environment_variables),
    ],
)
def test_installed_entry_point_loads(group, target):
    """An entry point of the installed distribution is the object itself."""
    (point,) = entry_points(group=group, name="concurrency")
    assert point.load() is target


def test_installed_version_is_the_one_of_the_code():
    """The distribution's version and `__version__` are one."""
    assert distribution("otel-concurrency").version == otel_concurrency.__version__


@pytest.mark.scale
def test_source_distribution_can_be_built_and_tested_from(tmp_path):
    """The source distribution holds the code, its tests and the texts, and nothing of the gate."""
    with tarfile.open(build("sdist", tmp_path)[0]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/conftest.py"} <= names
    assert {"hatch_build.py", "src/otel_concurrency/_core/_compiled.c"} <= names
    assert "src/otel_concurrency/_core/_c/state.h" in names
    assert "src/otel_concurrency/py.typed" in names
    assert not [name for name in names if name.endswith((".so", ".pyd"))]
    assert not [name for name in names if name.startswith((".ci", ".git/"))]
    assert not [name for name in names if "__pycache__" in name]


# --- what importing it costs ---


def imported_by(statement):
    """Return the modules that a statement imports in a fresh interpreter."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    return set(json.loads(run(sys.executable, "-c", program)))


@pytest.mark.parametrize("statement", ["otel_concurrency", "otel_concurrency.version"])
def test_importing_the_package_imports_nothing_heavy(statement):
    """The façade is itself and its version: nothing of ours, of OpenTelemetry, of the threads."""
    imported = imported_by(f"import {statement}")
    assert {name for name in imported if name.startswith("otel_concurrency")} == {
        "otel_concurrency",
        "otel_concurrency.version",
    }
    assert {name.split(".")[0] for name in imported} - {"otel_concurrency"} <= (
        sys.stdlib_module_names
    )
    assert not imported & {"asyncio", "concurrent.futures", "logging", "sched", "threading"}


def test_importing_the_settings_variables_imports_them_alone():
    """What `opentelemetry-instrument` loads in its own process adds one module, of literals."""
    package = imported_by("import otel_concurrency")
    variables = imported_by("import otel_concurrency.environment_variables")
    assert variables - package == {"otel_concurrency.environment_variables"}


def test_instrumenting_imports_nothing_that_it_patches():
    """Switching on imports none of the modules that the program has not imported itself."""
    needed = "import logging, wrapt, opentelemetry.instrumentation.instrumentor"
    on = "from otel_concurrency import ConcurrencyInstrumentor as I; I().instrument()"
    added = imported_by(f"{needed}; {on}") - imported_by(needed)
    added -= set(sys.builtin_module_names)  # there is no file to read for these
    assert {name.split(".")[0] for name in added} == {"otel_concurrency"}


def test_handing_off_by_hand_imports_neither_the_sdk_nor_the_instrumentor():
    """What is imported with it is the API of OpenTelemetry, and of ours only what is used."""
    needed = "import inspect, logging, wrapt, opentelemetry.propagate"
    used = (
        "import otel_concurrency as o\n"
        "with o.capture(): o.HandOff.from_headers(o.wrap(o.clean)().headers())"
    )
    added = imported_by(f"{needed}; {used}") - imported_by(needed)
    added -= set(sys.builtin_module_names)  # there is no file to read for these
    assert {name.split(".")[0] for name in added} == {"otel_concurrency"}
    assert "otel_concurrency._instrumentor" not in added


# --- the façade ---


def test_facade_gives_the_public_names():
    """The public names are there, and are the objects of the modules that define them."""
    for name in ("HandOff", "batch", "capture", "clean", "wrap"):
        assert getattr(otel_concurrency, name) is getattr(handoffs, name)
    assert otel_concurrency.ConcurrencyInstrumentor is _instrumentor.ConcurrencyInstrumentor
    assert otel_concurrency.Policy is policies.Policy
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab]\d+|rc\d+|\.dev\d+)?", otel_concurrency.__version__)


@pytest.mark.parametrize("name", otel_concurrency.__all__)
def test_public_name_is_resolved_when_it_is_used(name):
    """Each public name can be imported first, in a fresh interpreter."""
    run(sys.executable, "-c", f"from otel_concurrency import {name}")


def test_star_import_gives_the_public_names():
    """`from otel_concurrency import *` gives what `__all__` names."""
    names = {}
    exec("from otel_concurrency import *", names)
    assert set(otel_concurrency.__all__) == set(names) - {"__builtins__"}


def test_help_reads_well():
    """`help()` shows every public name with its contract, and no word of how it is made."""
    text = pydoc.plain(pydoc.render_doc(otel_concurrency))
    for name in set(otel_concurrency.__all__) - {"__version__"}:
        assert name in text
        assert getattr(otel_concurrency, name).__doc__.split("\n")[0] in text
    for _, method in inspect.getmembers(handoffs.HandOff, inspect.isroutine):
        if not method.__name__.startswith("_"):
            assert method.__doc__
    assert "Self" not in text
    assert "Unknown" not in text


def test_dir_gives_the_public_names():
    """`dir()` names what may be used, whether or not it has been used already."""
    assert dir(otel_concurrency) == sorted(otel_concurrency.__all__)


def test_unknown_name_is_an_attribute_error():
    """A name that does not exist fails as it does in any module."""
    with pytest.raises(AttributeError) as raised:
        _ = otel_concurrency.Instrumentor
    assert str(raised.value) == "module 'otel_concurrency' has no attribute 'Instrumentor'"
    with pytest.raises(ImportError, match="cannot import name 'Instrumentor'"):
        exec("from otel_concurrency import Instrumentor", {})


def test_policy_pickles_to_itself():
    """A policy is the same object in whatever process it arrives."""
    for policy in otel_concurrency.Policy:
        assert pickle.loads(pickle.dumps(policy)) is policy


def test_package_can_be_reloaded():
    """Reloading the package, as interactive users do, keeps the classes that are in use."""
    reloaded = importlib.reload(otel_concurrency)
    assert reloaded.ConcurrencyInstrumentor is _instrumentor.ConcurrencyInstrumentor
