"""The programs are there to be tested, or there is nothing to test."""

from __future__ import annotations

import importlib.util
import os

NEEDED = "celery dask datasette gunicorn luigi scrapy sphinx xdist"

collect_ignore = ["projects"]
if "ALL_PROGRAMS" not in os.environ and any(
    importlib.util.find_spec(program) is None for program in NEEDED.split()
):
    collect_ignore.append("test_real_programs.py")
