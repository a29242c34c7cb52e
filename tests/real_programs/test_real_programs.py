"""Programs that people run, each on a small project, without the library and with it.

Each span of a project names the span that is meant to be its parent. What the programs themselves
do is the same in both runs; with the library no span that has a parent has another one than that,
and no work is the root of a trace that was not one without it.
"""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from commands import environment

PROJECTS = Path(__file__).parent / "projects"
TIMEOUT = 100
"""Of one run, in seconds."""


class Outcome(NamedTuple):
    status: int
    output: object
    """What must be the same in both runs: the rest of what is printed is times and processes."""


class Program(NamedTuple):
    run: Callable[[list[str], Path], Outcome]
    """Runs what follows the command in a directory, with the command before it."""
    spans: int
    roots: int
    without: int
    """How many roots there are without the library."""
    status: int = 0


def variables(directory):
    """Return the environment of a program, without the settings and plugins of this machine."""
    return environment(
        HOME=str(directory),
        PYTHONPATH=str(directory),
        # They carry some of the work, too.
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="threading,asyncio",
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )


def finished(command, directory):
    """Run ``command`` to its end; return its status, and the lines it printed before the report."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=variables(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    printed = done.stdout.partition("\n─")[0]
    print(done.stdout, done.stderr)  # seen where the test fails
    return done.returncode, printed.strip().splitlines()


def pages(directory, pattern):
    """Return the text of the files that ``pattern`` names below ``directory``."""
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob(pattern)}


@contextlib.contextmanager
def serving(command, directory, process, ready, times=1):
    """Run a server; yield its address, and end the process that it names with SIGTERM.

    It can be used, and ended, when what ``ready`` describes was printed so many times.
    """
    log = []
    with subprocess.Popen(
        command,
        cwd=directory,
        env=variables(directory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    ) as server:
        overdue = threading.Timer(TIMEOUT, os.killpg, (server.pid, signal.SIGKILL))
        overdue.start()
        try:
            while len(re.findall(ready, "".join(log))) < times:
                line = server.stdout.readline()
                assert line, "".join(log)
                log.append(line)
            try:
                yield server, re.search(r"http://127\.0\.0\.1:\d+", "".join(log))[0]
            finally:
                os.kill(int(re.search(process, "".join(log))[1]), signal.SIGTERM)
                log.append(server.stdout.read())
                server.wait()
        except BaseException:
            os.killpg(server.pid, signal.SIGKILL)
            raise
        finally:
            overdue.cancel()
            print("".join(log))


def fetched(address, paths):
    """Return the bodies of the answers for ``paths``, four of which are asked for at a time."""

    def fetch(path):
        with urllib.request.urlopen(address + path, timeout=TIMEOUT) as answer:
            return answer.read().decode()

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(fetch, paths))


def script(name, *arguments):
    """Return what runs the script ``name``; its output is what it prints."""
    return lambda command, directory: Outcome(
        *finished([*command, sys.executable, f"{name}.py", *arguments], directory)
    )


def gunicorn(command, directory):
    """Run gunicorn with three workers; return its answers."""
    options = ["--workers=3", "--threads=2", "--bind=127.0.0.1:0", "--no-control-socket"]
    command = [*command, sys.executable, "-m", "gunicorn", *options, "wsgi:application"]
    started = r"Listening at: .* \((\d+)\)"
    with serving(command, directory, started, "application loaded", 3) as (server, address):
        bodies = fetched(address, [f"/{number}" for number in range(12)])
    return Outcome(server.returncode, bodies)


def datasette(command, directory):
    """Run datasette on an empty database; return the rows of its answers."""
    options = ["--memory", "--port=0", "--plugins-dir=datasette_plugins"]
    options += ["--setting", "sql_time_limit_ms", "60000"]
    query = "/_memory.json?_shape=array&sql=select+traced(1,:request),+traced(2,:request)&request="
    command = [*command, sys.executable, "-m", "datasette", *options]
    started = r"Started server process \[(\d+)\]"
    with serving(command, directory, started, "Uvicorn running on .*\n") as (server, address):
        bodies = fetched(address, [f"{query}{number}" for number in range(8)])
    return Outcome(server.returncode, [json.loads(body) for body in bodies])


def sphinx(command, directory):
    """Build documents in two processes; return the pages."""
    contents = ["Documents", "=========", "", ".. toctree::", ""]
    for number in range(7):
        contents.append(f"   page{number}")
        page = f"Page {number}\n======\n\nThe words of page {number}.\n"
        (directory / f"docs/page{number}.rst").write_text(page)
    (directory / "docs/index.rst").write_text("\n".join(contents) + "\n")
    options = ["-j2", "-q", "docs", "built"]
    status, printed = finished([*command, sys.executable, "-m", "sphinx", *options], directory)
    return Outcome(status, (printed, pages(directory / "built", "*.html")))


def xdist(command, directory):
    """Run tests in two processes; return what became of each, and how many passed."""
    options = ["-p", "xdist", "-n2", "-q", "-rA", "--tb=line", "--confcutdir=.", "checks.py"]
    suite = directory / "suite"
    (suite / "pytest.ini").write_text("[pytest]\n")
    shutil.move(directory / "spans.py", suite)
    status, printed = finished([*command, sys.executable, "-m", "pytest", *options], suite)
    outcomes = sorted(line for line in printed if line.startswith(("PASSED", "FAILED")))
    return Outcome(status, (outcomes, printed[-1].partition(" in ")[0]))


class Page(http.server.BaseHTTPRequestHandler):
    """Answers with three words."""

    def do_GET(self):
        body = f"words of {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def scrapy(command, directory):
    """Crawl six pages of a server in this process; return the items, by their paths."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"url=http://127.0.0.1:{server.server_port}"
        options = ["-a", address, "-O", "items.jsonl", "-s", "TELNETCONSOLE_ENABLED=0"]
        spider = [sys.executable, "-m", "scrapy", "runspider", "spider.py", *options]
        status, printed = finished([*command, *spider], directory)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    items = [json.loads(line) for line in (directory / "items.jsonl").read_text().splitlines()]
    return Outcome(status, (printed, sorted(items, key=lambda item: item["path"])))


PROGRAMS = {
    "celery": Program(script("tasks"), spans=12, roots=6, without=12),
    "dask": Program(script("graph"), spans=29, roots=3, without=3),
    "datasette": Program(datasette, spans=24, roots=8, without=24, status=143),
    "gunicorn": Program(gunicorn, spans=60, roots=12, without=60),
    "luigi": Program(script("pipeline", "built"), spans=20, roots=1, without=13),
    "scrapy": Program(scrapy, spans=18, roots=6, without=12),
    "sphinx": Program(sphinx, spans=17, roots=1, without=9),
    "xdist": Program(xdist, spans=32, roots=8, without=24, status=1),
}


def is_installed(name):
    """Whether a program can be run here; the gate's job demands all, and one that is not fails."""
    return "ALL_PROGRAMS" in os.environ or importlib.util.find_spec(name) is not None


def observed(program, directory, *options):
    """Run the program on a copy of the projects; return its outcome and the report of the spans."""
    shutil.copytree(PROJECTS, directory, ignore=shutil.ignore_patterns("__pycache__"))
    report = directory / "report.json"
    command = [sys.executable, "-m", "otel_concurrency", "trace", *options, "--json", str(report)]
    outcome = program.run([*command, "--"], directory)
    return outcome, json.loads(report.read_text())


def roots(report):
    """Return the names of the spans without a parent."""
    return {span["name"] for span in report["spans"] if span["parent"] is None}


def wrong_parents(report):
    """Return the names of spans with a parent that they were not meant to have, and its name."""
    names = {tuple(span["id"]): span["name"] for span in report["spans"]}
    parents = {
        span["name"]: (names.get(tuple(span["parent"])), span["attributes"]["intended"])
        for span in report["spans"]
        if span["parent"] is not None
    }
    return {name: actual for name, (actual, intended) in parents.items() if actual != intended}


@pytest.mark.timeout(4 * TIMEOUT)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(not is_installed(name), reason=f"no {name} is installed")
        )
        for name in PROGRAMS
    ],
)
def test_program(name, tmp_path):
    """The program does the same with the library, and its spans have no parents but the right."""
    program = PROGRAMS[name]
    plain, without = observed(program, tmp_path / "without", "--off")
    carried, with_library = observed(program, tmp_path / "with")
    assert carried == plain
    assert plain.status == program.status
    assert with_library["exit_status"] == without["exit_status"] == program.status
    for report in (without, with_library):
        names = [span["name"] for span in report["spans"]]
        assert len(set(names)) == len(names) == program.spans
        assert not report["dropped"]
        assert not report["incomplete"]
    assert wrong_parents(with_library) == {}
    assert with_library["leaks"] == []
    assert roots(with_library) <= roots(without)
    assert (len(roots(without)), len(roots(with_library))) == (program.without, program.roots)
