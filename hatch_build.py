"""Builds the compiled part into the wheel, and makes the README one that can be read on PyPI.

Hatchling calls this for every wheel (``tool.hatch.build.targets.wheel.hooks.custom``). Without a
compiler the wheel is pure Python. Whatever keeps the part from being built is said in one line, and
is no error: the library does the same without it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

MODULE = "otel_concurrency._core._compiled"
SOURCE = Path("src", *MODULE.split(".")).with_suffix(".c")
PURE_PYTHON = "OTEL_PYTHON_CONCURRENCY_PURE_PYTHON"


class CompiledPart(BuildHookInterface):  # type: ignore[type-arg]  # of any builder's settings
    """Adds the compiled part to the wheel, or to the source tree of an editable installation."""

    _directory = ""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build it, where that can be done."""
        reason = _reason_for_none()
        if not reason:
            try:
                self._directory = tempfile.mkdtemp()
                built = _build(Path(self.root), Path(self._directory))
            except BaseException as error:  # setuptools may leave by SystemExit
                if isinstance(error, KeyboardInterrupt):
                    raise
                reason = " ".join(str(error).split()) or type(error).__name__
        if reason:
            print(f"otel-concurrency is installed in pure Python: {reason}", file=sys.stderr)
        elif version == "editable":
            shutil.copy(built, Path(self.root, SOURCE).with_name(built.name))
        else:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"][str(built)] = "/".join(
                [*MODULE.split(".")[:-1], built.name]
            )

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built: it is in the wheel."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


class PublishedReadme(MetadataHookInterface):
    """Gives the distribution its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set it."""
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": published(readme)}


def published(readme: str) -> str:
    """Return the README for those who have no checkout: it installs what is published.

    Files of the repository cannot be linked to from there. They are named.
    """
    for before, after in (
        ("From a checkout, word for word,", "Word for word,"),
        ("'.[cli]'", "'otel-concurrency[cli]'"),
        ("## Read on\n", "## Read on\n\nThe pages are in `docs/` of the source distribution.\n"),
        ("## Develop\n", "## Develop\n\nIn the unpacked source distribution:\n"),
    ):
        readme = readme.replace(before, after)
    return re.sub(r"\[([^\]]+)\]\((?!https?://|#)[^)]+\)", r"\1", readme)


def _reason_for_none() -> str:
    """Return why nothing is to be compiled here; nothing where it is."""
    if os.environ.get(PURE_PYTHON, "").strip().lower() in ("1", "true"):
        return f"{PURE_PYTHON} is set"
    if sys.implementation.name != "cpython":
        return "the compiled part is for CPython"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the compiled part is not for builds without the GIL"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "this Python comes without its headers (Python.h)"
    return ""


def _build(root: Path, directory: Path) -> Path:
    """Compile the module; return the file, which is in ``directory``."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    flags = [] if os.name == "nt" else ["-g0"]
    extension = Extension(MODULE, [str(root / SOURCE)], extra_compile_args=flags)
    command = build_ext(Distribution({"ext_modules": [extension]}))
    command.build_lib = command.build_temp = str(directory)
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(MODULE))
