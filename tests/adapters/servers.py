"""Servers that the libraries' tests talk to: each of the test's own, on a port of loopback.

They are Debian's: ``redis-server``, ``nats-server``, ``mosquitto``, ``rabbitmq-server``,
``postgresql``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

WAIT = 80
"""Seconds after which a server that does not answer will not do so any more."""

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_ports(number):
    """Return ports of loopback that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def found(program):
    """Return where a program is, also if it is only for administrators; None: nowhere."""
    return shutil.which(program, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))


def postgres_programs():
    """Return where PostgreSQL's programs are, or None."""
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return there[-1].parent if there else None


INSTALLED = {
    "redis": found("redis-server") is not None,
    "nats": found("nats-server") is not None,
    "mosquitto": found("mosquitto") is not None,
    "rabbitmq": RABBITMQ.exists(),
    "postgres": postgres_programs() is not None,
}


@contextlib.contextmanager
def _running(command, directory, answers, **given):
    log = directory / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, **given
        ) as server,
    ):
        try:
            deadline = time.monotonic() + WAIT
            while not answers():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(WAIT)


def _says(port, greeting, answer):
    try:
        with socket.create_connection(("127.0.0.1", int(port)), 5) as client:
            client.sendall(greeting)
            return client.recv(len(answer)) == answer
    except OSError:
        return False


@contextlib.contextmanager
def redis(directory):
    """Run Redis; yield its port."""
    (port,) = free_ports(1)
    command = [found("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", ""]
    with _running(
        [*command, "--dir", directory], directory, lambda: _says(port, b"PING\r\n", b"+PONG")
    ):
        yield port


@contextlib.contextmanager
def nats(directory):
    """Run NATS with JetStream; yield its port."""
    (port,) = free_ports(1)
    command = [found("nats-server"), "-a", "127.0.0.1", "-p", port, "-js", "-sd", directory]
    with _running(command, directory, lambda: _says(port, b"", b"INFO")):
        yield port


@contextlib.contextmanager
def mosquitto(directory):
    """Run mosquitto; yield its port."""
    (port,) = free_ports(1)
    settings = directory / "settings"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n", encoding="utf-8")
    hello = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"
    with _running(
        [found("mosquitto"), "-c", settings], directory, lambda: _says(port, hello, b"\x20\x02")
    ):
        yield port


@contextlib.contextmanager
def rabbitmq(directory):
    """Run RabbitMQ; yield its port."""
    names, distribution, port = free_ports(3)
    environment = {
        **os.environ,
        "HOME": str(directory),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": names,
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
        "RABBITMQ_CONFIG_FILE": str(directory / "none"),
        "RABBITMQ_DIST_PORT": distribution,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_NODENAME": f"tests{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": port,
        "RABBITMQ_PID_FILE": str(directory / "pid"),
    }
    greeting = b"AMQP\x00\x00\x09\x01"
    with subprocess.Popen(
        ["epmd", "-port", names], env=environment, stdout=subprocess.DEVNULL
    ) as epmd:
        try:
            with _running(
                [RABBITMQ], directory, lambda: _says(port, greeting, b"\x01"), env=environment
            ):
                yield port
        finally:
            epmd.terminate()


@contextlib.contextmanager
def postgres(directory):
    """Run PostgreSQL with the user ``postgres``, who needs no password; yield its port."""
    # Not in the folder of pytest's: each pytest that starts closes that to other users.
    with tempfile.TemporaryDirectory() as folder:
        yield from _postgres(directory, Path(folder))


def _postgres(directory, folder):
    (port,) = free_ports(1)
    programs, data = postgres_programs(), folder / "data"
    given = {}
    if os.getuid() == 0:  # which it refuses to run as
        account = pwd.getpwnam("postgres")
        given = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        shutil.chown(folder, account.pw_uid, account.pw_gid)
    make = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    made = subprocess.run(make, capture_output=True, text=True, check=False, cwd="/", **given)
    assert made.returncode == 0, made.stderr
    command = [programs / "postgres", "-D", data, "-p", port, "-k", folder, "-F"]
    start_up = b"\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"
    with _running(
        [*command, "-c", "listen_addresses=127.0.0.1"],
        directory,
        lambda: _says(port, start_up, b"R"),
        cwd="/",
        **given,
    ):
        yield port


SERVERS = {
    "redis": redis,
    "nats": nats,
    "mosquitto": mosquitto,
    "rabbitmq": rabbitmq,
    "postgres": postgres,
}
