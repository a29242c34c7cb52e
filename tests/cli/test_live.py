"""``otel-concurrency trace --pid`` on a service under uvicorn, which serves requests meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from commands import environment
from otel_concurrency._cli import attaching, main
from otel_concurrency._observer import live
from programs import APPS

pytestmark = pytest.mark.skipif(
    not hasattr(sys, "remote_exec"), reason="a process can be looked into since Python 3.14"
)

DEADLINE = 60


class Service:
    """A running service."""

    def __init__(self, process, port):
        self.process, self.pid, self.port = process, process.pid, port

    def get(self, path):
        """Return what the service answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            return json.loads(body)

    @contextlib.contextmanager
    def under_load(self):
        """Have four clients place orders inside the ``with`` block; none of them may fail.

        Yields the list of the answers, which grows.
        """
        over = threading.Event()
        answers, failures = [], []

        def place_orders():
            while not over.is_set():
                try:
                    answers.append(self.get("/order"))
                except Exception as error:
                    failures.append(error)
                over.wait(0.05)  # or they would take the processor from all that is tested

        clients = [threading.Thread(target=place_orders) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            yield answers
        finally:
            over.set()
            for client in clients:
                client.join()
        assert failures == []

    def is_as_before(self, state):
        """Whether the service is in ``state``; threads that have just ended need a moment."""
        return attaching.wait_for(lambda: self.get("/state") == state, self.pid, DEADLINE)


@pytest.fixture(scope="module", autouse=True)
def temporary_files(tmp_path_factory):
    """Have the command make its directories where they can be counted; return that place."""
    place = tmp_path_factory.mktemp("command")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        patch.setattr("tempfile.tempdir", str(place))
        yield place


@pytest.fixture(scope="module")
def service():
    """Run the service that the tests share; skip where the kernel forbids to look into it."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(APPS / "live_service.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        service = Service(process, int(process.stdout.readline()))
        try:
            attaching.answer_of(process.pid, {"what": live.STATUS}, DEADLINE)
        except attaching.NotAttachedError as error:
            if "ptrace" in str(error):
                pytest.skip(f"the kernel forbids it: {error}")
            raise
        yield service
        assert process.poll() is None
    finally:
        process.kill()
        _, errors = process.communicate()
    assert errors == ""


def arguments(service, *more, seconds):
    """Return the arguments of the command."""
    known = ("--pid", str(service.pid), "--wait", str(DEADLINE), "--seconds", str(seconds))
    return ("trace", *known, *more)


@contextlib.contextmanager
def command(service, *more, seconds):
    """Run the command in a process of its own; yield it when the service is observed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "otel_concurrency", *arguments(service, *more, seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TMPDIR=os.environ["TMPDIR"]),
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until_observed(service, temporary_files):
    """Wait until the service has written an event."""

    def has_written():
        return any(file.stat().st_size for file in temporary_files.glob("*/*.jsonl"))

    assert attaching.wait_for(has_written, service.pid, DEADLINE)


def look(service, temporary_files, *more):
    """Observe the service until it has answered 20 more orders; return the command's result."""
    with command(service, *more, seconds=600) as process, service.under_load() as answers:
        wait_until_observed(service, temporary_files)
        enough = len(answers) + 20
        assert attaching.wait_for(lambda: len(answers) >= enough, service.pid, DEADLINE)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE)
    return process.returncode, output, errors


def names(report):
    """Return how many spans of each name there are, and which parents each name has."""
    by_id = {tuple(span["id"]): span for span in report["spans"]}
    parents = {
        (span["name"], by_id[tuple(span["parent"])]["name"] if span["parent"] else None)
        for span in report["spans"]
        if span["parent"] is None or tuple(span["parent"]) in by_id
    }
    return Counter(span["name"] for span in report["spans"]), parents


def test_a_service_with_the_library_on(service, tmp_path, temporary_files):
    """The report has trees and hand-offs by line, no request fails, and nothing is left."""
    service.get("/on")
    file, page = tmp_path / "report.json", tmp_path / "report.html"
    before = service.get("/state")
    options = ("--json", str(file), "--html", str(page), "--fail-on", "orphans,leaks")
    status, _, errors = look(service, temporary_files, *options)
    report = json.loads(file.read_text())
    assert (status, report["library"], report["exit_status"]) == (0, True, None), errors
    counts, parents = names(report)
    assert min(counts["GET /order"], counts["pack"], counts["deliver"]) > 5
    assert parents == {("GET /order", None), ("pack", "GET /order"), ("deliver", "GET /order")}
    assert (report["orphans"], report["leaks"]) == ([], [])
    sites = {each["call"]: each["with_context"] for each in report["call_sites"]}
    assert sites["loop.run_in_executor"] > 5
    assert sites["Queue.put"] > 5
    assert "GET /order" in page.read_text()
    assert before["changed"] == []
    assert service.is_as_before(before)
    assert list(temporary_files.iterdir()) == []


def test_a_service_with_the_library_off(service, tmp_path, temporary_files):
    """The report shows what is lost without the library, which stays off."""
    service.get("/off")
    file = tmp_path / "report.json"
    before = service.get("/state")
    status, output, errors = look(
        service, temporary_files, "--json", str(file), "--fail-on", "orphans"
    )
    report = json.loads(file.read_text())
    assert (status, report["library"]) == (1, False), errors
    assert {each["reason"] for each in report["orphans"]} == {"primitive_off"}
    assert "library off" in output
    assert before["changed"] == []
    assert service.is_as_before(before)
    assert service.get("/is_on") == {"on": False}


def test_a_service_that_has_nothing_to_do(service, capsys):
    """No span is no success: --fail-on says so, with a status of its own; then the time is up."""
    before = service.get("/state")
    assert main(arguments(service, "--fail-on", "orphans", seconds=0.3)) == 3
    assert "no span was started" in capsys.readouterr().err
    assert service.is_as_before(before)


def test_ctrl_c_ends_the_look(service, tmp_path, temporary_files):
    """The report is about what was seen until then; a forked child is not observed, meanwhile."""
    before = service.get("/state")
    file = tmp_path / "report.json"
    with command(service, "--json", str(file), seconds=600) as process:
        wait_until_observed(service, temporary_files)
        assert service.get("/state")["changed"] != []
        assert service.get("/fork") == {"status": 0}
        service.get("/order")
        with pytest.raises(attaching.NotAttachedError, match="it is being observed already"):
            attaching.answer_of(service.pid, {"what": live.TRACE, "seconds": 1}, DEADLINE)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    counts, _ = names(json.loads(file.read_text()))
    assert counts == {"GET /order": 1, "pack": 1, "deliver": 1}
    assert service.is_as_before(before)
    assert list(temporary_files.iterdir()) == []


def test_a_command_that_is_killed(service, temporary_files):
    """The service stops observing itself, and removes the files."""
    before = service.get("/state")
    with command(service, seconds=600) as process:
        wait_until_observed(service, temporary_files)
        process.kill()
        process.wait()
    assert service.is_as_before(before)
    assert list(temporary_files.iterdir()) == []


def test_a_process_that_ends_meanwhile(tmp_path, temporary_files, capsys, service):
    """What was seen until then is reported, its end included."""
    file = tmp_path / "report.json"
    source = "import select, sys\nwhile not select.select([sys.stdin], [], [], 0.02)[0]: pass"
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, env=environment()
    ) as process:
        other = Service(process, 0)
        ending = threading.Thread(
            target=lambda: (wait_until_observed(other, temporary_files), process.stdin.close())
        )
        ending.start()
        status = main(arguments(other, "--json", str(file), seconds=600))
        ending.join()
    assert (status, process.returncode) == (0, 0)
    (observed,) = json.loads(file.read_text())["processes"]
    assert observed["ended_ns"] > observed["started_ns"]
    assert f"process {process.pid} has ended meanwhile" in capsys.readouterr().err
