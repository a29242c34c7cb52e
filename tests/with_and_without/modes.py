"""The modes that tests are run in, each a virtual environment whose site module makes it so.

The site module is run by every interpreter that a test starts, whatever its environment.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

PLAIN, SDK = "plain", "sdk"
MODES = ("none", "span", "link")
"""On without a context, on in a recording span with baggage, the same under the policy ``link``."""
BASELINES = {"none": (PLAIN,), "span": (PLAIN, SDK), "link": (PLAIN, SDK)}
"""What has to pass for a failure to be a difference: where there is a span, the SDK alone too."""

_NAME = "otel_concurrency_everywhere"
_CODE = Path(__file__).with_name(f"{_NAME}.py")

_SAY = """
import sys, threading
api = "opentelemetry.trace" in sys.modules and sys.modules["opentelemetry.trace"]
print(hasattr(threading.Thread.start, "__wrapped__"))
print(bool(api) and api.get_current_span().is_recording())
"""
_EXPECTED_TO_SAY = {
    PLAIN: ["False", "False"],
    SDK: ["False", "True"],
    "none": ["True", "False"],
    "span": ["True", "True"],
    "link": ["True", "True"],
}


def create(directory: Path, *, plain: Sequence[str], others: Sequence[str]) -> dict[str, Path]:
    """Return the interpreter of each mode, in environments that are made below ``directory``.

    Packages are found in the directories ``plain`` without the library, in ``others`` with it.
    """
    pythons = {}
    for mode in (PLAIN, SDK, *MODES):
        root = directory / mode
        venv.create(root, symlinks=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = root / "lib" / version / "site-packages"
        lines = list(plain)
        if mode != PLAIN:
            (packages / f"{_NAME}.py").write_text(f"{_CODE.read_text()}\n\nstart({mode!r})\n")
            lines = [*others, f"import {_NAME}"]
        (packages / f"{_NAME}.pth").write_text("\n".join(lines) + "\n")
        python = pythons[mode] = root / "bin" / "python"
        said = subprocess.check_output([python, "-c", _SAY], text=True).split()
        assert said == _EXPECTED_TO_SAY[mode], f"{mode} is {said}"
    return pythons
