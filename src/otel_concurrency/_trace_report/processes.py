"""Whether a process still runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def is_there(pid: int) -> bool:
    """Whether a process runs; a zombie does not. On Windows nothing is known of it: False."""
    if pid == os.getpid():
        return True
    if sys.platform == "win32":  # there, to ask would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # not Linux, or gone by now
        return True
    return state not in "ZX"
