"""Looking into a running process: ``--pid``, and what can keep it from being looked into."""

from __future__ import annotations

import _thread
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from commands import command, environment
from otel_concurrency._cli import attaching, main
from otel_concurrency._observer import live

SINCE_3_14 = pytest.mark.skipif(
    not hasattr(sys, "remote_exec"), reason="a process can be looked into since Python 3.14"
)

PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from otel_concurrency import ConcurrencyInstrumentor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
ConcurrencyInstrumentor().instrument(queue="off")
"""
LOOP = """
import select, sys
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    pass
"""
BLOCKED = """
import sys
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    pass
"""


@contextlib.contextmanager
def running(program, *options, **variables):
    """Run a program that ends with its standard input; yield it when it is ready."""
    process = subprocess.Popen(
        [sys.executable, *options, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module", autouse=True)
def temporary_files(tmp_path_factory):
    """Have the command make its directories where they can be counted; return that place."""
    before = os.environ.get("TMPDIR")
    place = tmp_path_factory.mktemp("command")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        patch.setattr("tempfile.tempdir", str(place))
        yield place
    assert os.environ.get("TMPDIR") == before


@pytest.fixture(scope="module")
def program():
    """Run a program that the tests share; skip where the kernel forbids to look into it."""
    with running(PROGRAM + LOOP) as process:
        try:
            attaching.answer_of(process.pid, {"what": live.STATUS}, 60)
        except attaching.NotAttachedError as error:
            if "ptrace" in str(error):
                pytest.skip(f"the kernel forbids it: {error}")
            raise
        yield process


def refusal(pid, wait=60):
    """Return the message with which the command refuses to look into a process."""
    with pytest.raises(attaching.NotAttachedError) as raised:
        attaching.answer_of(pid, {"what": live.STATUS}, wait)
    assert raised.value.status == 2
    return str(raised.value)


@SINCE_3_14
def test_status_of_a_running_process(program, temporary_files):
    """It shows what is patched there and by which setting, its provider and its exporters."""
    told = command("status", "--json", "--pid", str(program.pid), "--wait", "60")
    assert (told.returncode, told.stderr) == (0, "")
    state = json.loads(told.stdout)
    assert state["on"] is True
    policies = {each["name"]: (each["policy"], each["set_by"]) for each in state["primitives"]}
    assert policies["queue"] == ("off", "instrument(queue=...)")
    assert policies["threading"] == ("parent", None)
    assert state["exporters"] == [
        {
            "signal": "traces",
            "provider": "opentelemetry.sdk.trace.TracerProvider",
            "exporters": ["opentelemetry.sdk.trace.export.ConsoleSpanExporter"],
        }
    ]
    assert list(temporary_files.iterdir()) == []


@SINCE_3_14
def test_status_of_a_running_process_in_words(program):
    """The terminal says in which process the library is on."""
    told = command("status", "--pid", str(program.pid), "--wait", "60")
    assert f"The library is on in process {program.pid}." in told.stdout
    assert "ConsoleSpanExporter" in told.stdout


@SINCE_3_14
def test_nothing_is_left_of_a_look(program):
    """No thread and no file descriptor stays in the process, and it has written nothing."""

    def facts():
        return (
            len(os.listdir(f"/proc/{program.pid}/task")),
            sorted(os.listdir(f"/proc/{program.pid}/fd")),
        )

    before = facts()
    attaching.answer_of(program.pid, {"what": live.STATUS}, 60)
    # The thread ends just after it has answered.
    assert attaching.wait_for(lambda: facts() == before, program.pid, 60)


def state_of(process):
    """Return what the kernel says the process does: it begins with S where it sleeps."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2]


@SINCE_3_14
def test_a_process_that_comes_to_no_safe_point(program):
    """It is given up after a while; when it goes on it does nothing, and says nothing."""
    with running(BLOCKED) as process:
        # It has a single thread, which then waits in `read`.
        assert attaching.wait_for(lambda: state_of(process).startswith("S"), process.pid, 60)
        message = refusal(process.pid, wait=0.2)
        assert "has not come to a point at which it can be looked into in 0.2 seconds" in message
        out, error = process.communicate("\n", timeout=60)
        assert (process.returncode, out, error) == (0, "", "")


@SINCE_3_14
@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("-X", "disable-remote-debug"), {}),
        ((), {"PYTHON_DISABLE_REMOTE_DEBUG": "1"}),
    ],
)
def test_remote_debugging_is_disabled(options, variables, program):
    """The message names the option and the variable that can have disabled it."""
    with running(BLOCKED, *options, **variables) as process:
        message = refusal(process.pid)
    assert message.startswith(f"remote debugging is disabled in process {process.pid}")
    assert "PYTHON_DISABLE_REMOTE_DEBUG or -X disable-remote-debug" in message


@SINCE_3_14
def test_the_package_is_not_installed_there(program):
    """The message names the interpreter whose environment lacks it, and the process goes on."""
    with running(LOOP, "-I", "-S") as process:
        message = refusal(process.pid)
        assert f"process {process.pid} cannot import otel-concurrency" in message
        assert sys.executable in message
        out, error = process.communicate("\n", timeout=60)
        assert (process.returncode, out, error) == (0, "", "")


@SINCE_3_14
def test_a_process_whose_threads_are_greenlets(program):
    """The look has a thread of the system there too, and does not stand in the way of the loop."""
    pytest.importorskip("gevent")
    patched = "from gevent import monkey; monkey.patch_all()\n"
    with running(patched + PROGRAM + LOOP) as process:
        request = {"what": live.TRACE, "seconds": 0.1}
        found = attaching.answer_of(process.pid, request, 60)
        _, error = process.communicate("\n", timeout=60)
    assert (found, process.returncode, error) == ({live.TRACE: {"library": True}}, 0, "")


@SINCE_3_14
def test_a_process_that_is_not_python(program):
    """A program in C is told apart from a Python that is too old."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert refusal(process.pid) == f"process {process.pid} is not a CPython process"
        finally:
            process.kill()


@SINCE_3_14
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another")
def test_root_looks_into_the_process_of_another_user(program, monkeypatch, request):
    """The files that the process reads and writes are its own user's, and root is root again."""
    place = tempfile.mkdtemp(dir="/tmp")
    request.addfinalizer(lambda: os.rmdir(place))
    os.chmod(place, 0o777)  # every user can write there
    monkeypatch.setattr("tempfile.tempdir", place)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            user=65534,
            group=65534,
            text=True,
        )
    except PermissionError:
        pytest.skip("this Python cannot be run by every user")
    with process:
        if process.stdout.readline() != "ready\n":
            pytest.skip("this environment cannot be read by every user")
        found = attaching.answer_of(process.pid, {"what": live.STATUS}, 60)
        _, error = process.communicate("\n", timeout=60)
    assert (found[live.STATUS]["on"], error) == (True, "")
    assert (os.geteuid(), os.getegid()) == (0, 0)


# Messages, on every Python.


@pytest.fixture
def reachable(monkeypatch):
    """Take this Python for one that can look into processes; return what fails in its place."""

    def fail(error):
        def execute(pid, script):
            raise error

        monkeypatch.setattr(attaching, "_remote_exec", execute)

    monkeypatch.setattr(attaching, "_check_versions", lambda: None)
    return fail


def test_this_python_is_too_old(monkeypatch):
    """The message says which version the command runs on, and which it needs."""
    monkeypatch.setattr(attaching, "_SINCE", (9, 1))
    message = refusal(os.getpid())
    assert "needs Python 3.14 or later, in that process and here" in message
    assert sys.version.split()[0] in message


def test_there_is_no_such_process(reachable):
    """The number of a process that has ended is refused."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert refusal(process.pid) == f"there is no process {process.pid}"


def test_another_users_process(reachable, monkeypatch):
    """The message names the user, and says who may look."""

    def kill(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(attaching, "_owner", lambda pid: (0, 0))
    message = refusal(1)
    assert message == (
        "process 1 belongs to the user root: run this command as that user, or as root"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "CAP_SYS_PTRACE"),
        (
            RuntimeError("Can't send commands from a Python 3.14 process to a Python 3.13 process"),
            "runs on Python 3.13: looking into a running process needs Python 3.14",
        ),
        (
            RuntimeError("Can't send commands from a Python 3.14 process to a Python 3.99 process"),
            "runs on Python 3.99, and this command on ",
        ),
        (RuntimeError("Remote debugging is not enabled"), "disabled in this command"),
    ],
)
def test_what_the_system_refuses(error, words, reachable):
    """Each refusal has words of its own."""
    reachable(error)
    assert words in refusal(os.getpid())


@pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="there the files of a process do not say which CPython it is",
)
def test_a_python_that_is_too_old_to_say_so(reachable):
    """Before 3.13 an interpreter looks like any other program; its files say its version."""
    here = "{}.{}".format(*sys.version_info)
    assert attaching._version_of(os.getpid()) == here
    reachable(RuntimeError("PyRuntime address lookup failed during debug offsets initialization"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attaching, "_SINCE", (9, 1))
        assert f"runs on Python {here}: looking into a running process needs" in refusal(
            os.getpid()
        )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not tell")
def test_a_process_with_other_temporary_files(reachable, monkeypatch):
    """It could not read the script, and would say so: it is not asked to."""
    stat = os.stat

    def of_another_root(path, *args, **kwargs):
        if "/root" in str(path):
            raise FileNotFoundError
        return stat(path, *args, **kwargs)

    reachable(AssertionError("it was asked to"))
    monkeypatch.setattr(os, "stat", of_another_root)
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    message = refusal(os.getpid())
    assert f"process {os.getpid()} has another directory" in message
    assert "set TMPDIR" in message


def test_an_interpreter_that_is_starting(monkeypatch, tmp_path):
    """It is tried again until the interpreter runs."""
    errors = [RuntimeError("Can't find the main thread in the remote process")] * 3
    tried = []

    def execute(pid, script):
        tried.append(script)
        if errors:
            raise errors.pop()

    monkeypatch.setattr(attaching, "_remote_exec", execute)
    attaching._execute(os.getpid(), tmp_path, 60)
    assert tried == [tmp_path] * 4


@pytest.mark.parametrize("option", [("--pid", "x"), ("--pid", "0"), ("--pid", "1", "--wait", "-1")])
def test_what_is_no_number(option):
    """A wrong number is an error of usage."""
    told = command("status", *option)
    assert (told.returncode, "expected" in told.stderr) == (2, True)


@pytest.mark.parametrize("option", ["--seconds", "--wait"])
def test_options_that_go_with_pid_alone(option, capsys):
    """Without it they are an error of usage, before anything runs."""
    with pytest.raises(SystemExit) as exited:
        main(["trace", option, "1", "--", "program"])
    assert exited.value.code == 2
    assert f"{option} goes with --pid" in capsys.readouterr().err


@pytest.mark.parametrize("more", [("--off",), ("--compare",), ("--", "program")])
def test_pid_goes_with_nothing_that_runs_a_program(more, capsys):
    """Such a command line is an error of usage."""
    with pytest.raises(SystemExit) as exited:
        main(["trace", "--pid", "1", *more])
    assert exited.value.code == 2
    assert "--pid goes with no program" in capsys.readouterr().err


@pytest.mark.parametrize("what", [live.STATUS, live.TRACE])
def test_what_is_imported_is_imported_in_small_steps(what):
    """Each module stands after those that it imports; none of the command's is among them."""
    needed = live.needed_for(what)
    assert needed.index("otel_concurrency._core.faults") < needed.index(live.__name__)
    assert needed.index("otel_concurrency._core.patching") < needed.index(live._ENTRANCES[what])
    assert not [name for name in needed if ".sdk." in name or "._cli" in name]


# The script, as the interpreter runs it.


def run_script(directory):
    """Run the script here."""
    exec(live.script(directory), {})  # as the interpreter does


def test_a_script_that_is_left_behind_does_nothing(tmp_path):
    """Its directory is gone: it starts no thread, and raises nothing."""
    gone = tmp_path / "gone"
    run_script(gone)
    assert not gone.exists()


def run_script_and_go_on(directory):
    """Run the script here, and some more instructions, between which a signal is handled."""
    run_script(directory)
    for _ in range(1000):
        pass


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython runs scripts of other processes"
)
@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit])
def test_a_signal_that_comes_during_the_script_is_not_lost(tmp_path, monkeypatch, leave):
    """Its handler raises inside the script, where it would be lost; it is called once more."""

    def handle(number, frame):
        raise leave

    def interrupted(*_):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        monkeypatch.setattr(os, "open", interrupted)
        with pytest.raises(leave):
            run_script_and_go_on(tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_fault_is_logged_once_and_told_to_the_command(tmp_path, caplog):
    """The process goes on; the command gets the words of the error."""
    for name in ("first", "second"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / live.REQUEST).write_text("{}")
        live.look(str(directory), _thread)
        assert json.loads((directory / live.ANSWER).read_text())["fault"] == "KeyError: 'what'"
    (record,) = (each for each in caplog.records if each.name == live.__name__)
    assert record.levelno == logging.WARNING
