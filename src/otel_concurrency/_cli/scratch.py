"""The directory in which the program's processes tell the command what they have seen.

It is gone when the command has ended. A command that is killed leaves it behind, and the next one
removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path

from otel_concurrency._observer.live import IN_USE

try:
    import fcntl
except ImportError:  # Windows: whatever is left there stays
    fcntl = None  # type: ignore[assignment]

_PREFIX = "otel-concurrency-"


@contextlib.contextmanager
def directory() -> Generator[Path, None, None]:
    """Make a temporary directory, and remove those that no process uses any more."""
    _remove_the_forgotten()
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name,
        _used(Path(name)),
    ):
        yield Path(name)


@contextlib.contextmanager
def _used(path: Path) -> Generator[None, None, None]:
    # Renamed when it is locked, so that an unlocked one is never seen.
    with (path / f"{IN_USE}-soon").open("w") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
                os.rename(file.name, path / IN_USE)
        yield


def _remove_the_forgotten() -> None:
    if fcntl is None:
        return
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, another user's, or gone by now
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                with (path / IN_USE).open("r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
