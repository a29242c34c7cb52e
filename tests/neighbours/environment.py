"""Gets the source distribution of a project, and installs it with what its tests need."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

from suites import PYTEST, Suite

HERE = Path(__file__).resolve().parent
OURS = f"{HERE.parents[1]}[cli]"


def install(directory: Path, name: str, suite: Suite) -> Path:
    """Return where all is that is installed for ``suite``, this library included."""
    root = directory / "env"
    uv = shutil.which("uv")
    if uv:  # also where the standard library's ensurepip does not work
        subprocess.check_call([uv, "venv", "--quiet", "--seed", "--python", sys.executable, root])
    else:
        venv.create(root, symlinks=True, with_pip=True)
    pinned = f"{name}=={suite.version}"
    _pip(root, "download", "--no-deps", f"--no-binary={name}", f"--dest={directory}", pinned)
    _pip(root, "install", OURS, PYTEST, pinned, *suite.needs)
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(root)}))


def _pip(root: Path, verb: str, *arguments: str) -> None:
    command = [root / "bin" / "python", "-m", "pip", verb, "--quiet", "--quiet", *arguments]
    subprocess.check_call(command, stdin=subprocess.DEVNULL)


def extract(directory: Path, to: Path, suite: Suite) -> Path:
    """Extract the source distribution that is in ``directory``; return where its tests are run."""
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(to, filter="data")
    (root,) = to.iterdir()
    if suite.hidden:
        shutil.rmtree(root / suite.hidden)
    return root
