"""The scan for libraries' own threads and tasks finds them in every form, and knows the tables."""

from __future__ import annotations

import pytest

from scan_threads.__main__ import main

LIBRARY = {
    "made_up/__init__.py": "",
    "made_up/threads.py": """
import _thread, functools, threading
from threading import Thread
from made_up.base import Worker

class Poller(Thread):
    def run(self):
        while True: pass

class Heart(Worker):
    def run(self):
        while True: pass

class Once(Thread):
    def run(self):
        print()

class Client:
    def connect(self):
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(None, functools.partial(self._write, 1)).start()
        threading.Timer(1, self._beat).start()
        def flush():
            while True: pass
        _thread.start_new_thread(flush, ())
        Thread(target=other.serve_forever)

    def _read(self):
        while True: pass

    def _write(self, number):
        while number: pass

    def _beat(self):
        while True: pass

def once():
    print()

Thread(target=once)
""",
    "made_up/base.py": """
import threading
class Worker(threading.Thread):
    pass
""",
    "made_up/tasks.py": """
import asyncio
class Reader:
    def start(self, group):
        self._task = asyncio.create_task(self._read())
        group.start_soon(listen)
        asyncio.ensure_future(self._once())

    async def _read(self):
        while True: pass

    async def _once(self):
        pass

async def listen():
    async for item in items: pass
""",
    "made_up/tests/threads.py": "import threading\nthreading.Thread(target=print)",
    "made_up/broken.py": "Thread = (",
    "redis/background.py": """
import threading
def _start_event_loop_in_thread(loop):
    loop.run_forever()
threading.Thread(target=_start_event_loop_in_thread)
""",
}


@pytest.fixture
def scan(tmp_path, capsys):
    """Return what scans a made-up library, and returns the lines that are printed."""
    for name, source in LIBRARY.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    information = tmp_path / "made_up-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: made-up\nVersion: 1.0\n", encoding="utf-8")
    (information / "RECORD").write_text("".join(f"{name},,\n" for name in LIBRARY))

    def run(*options):
        main(["--path", str(tmp_path), *options])
        return capsys.readouterr().out.splitlines()

    return run


def names(lines):
    """Return the kinds and names of what was found."""
    return {tuple(line.split()[2:4]) for line in lines[:-1]}


FOUND = {
    ("class", "made_up.threads.Poller"),
    ("class", "made_up.threads.Heart"),
    ("thread", "made_up.threads.Client._read"),
    ("thread", "made_up.threads.Client._write"),
    ("thread", "made_up.threads.Client._beat"),
    ("thread", "made_up.threads.Client.connect.<locals>.flush"),
    ("task", "made_up.tasks.Reader._read"),
    ("task", "made_up.tasks.listen"),
}


def test_what_lives_on_and_is_in_no_table_is_shown(scan):
    """Threads by class and by target, methods, closures, timers, and tasks; tests are left out."""
    lines = scan()
    assert names(lines) == FOUND
    assert all(line.endswith("in no table") for line in lines)
    assert lines[-1] == "1 in a table, 8 in no table"


def test_what_is_in_a_table_is_shown_on_demand(scan):
    """With the others, and marked as such."""
    lines = scan("--all", "made_up")
    (known,) = (line for line in lines if line.endswith("in a table"))
    assert "redis.background._start_event_loop_in_thread" in known


def test_what_has_no_loop_is_shown_on_demand(scan):
    """It may be a part of a request, or a method of something else that loops."""
    assert names(scan("--short")) == FOUND | {
        ("class", "made_up.threads.Once"),
        ("class", "made_up.base.Worker"),
        ("thread", "made_up.threads.once"),
        ("thread", "?.serve_forever"),
        ("task", "made_up.tasks.Reader._once"),
    }


def test_distributions_are_chosen_by_name(scan):
    """However their names are written; of others nothing is shown."""
    assert names(scan("Made_Up")) == FOUND
    assert scan("another") == ["0 in a table, 0 in no table"]
