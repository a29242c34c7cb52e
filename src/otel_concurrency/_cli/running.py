"""Runs the user's program as if it had been started without us.

It has our standard streams, and gets each signal once, from the terminal or from us. On Linux it
ends when this process is killed. What it ended with becomes what a shell would say of it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from types import FrameType

from otel_concurrency._cli import CommandError

_PERIOD = 0.1
"""Seconds between two calls of ``meanwhile``."""

_OF_A_TERMINAL = ("SIGINT", "SIGQUIT")
"""What keys send to all that is in the foreground: to each process of a server."""

_FORWARDED = (*_OF_A_TERMINAL, "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    meanwhile: Callable[[], None],
    on_interrupt: Callable[[], None] = lambda: None,
) -> int:
    """Run ``command`` to its end, and call ``meanwhile`` many times a second; return the status.

    ``on_interrupt`` is called at each Ctrl-C, which the program gets as well.

    That is 128 and the number of the signal where it was ended by one. Raises CommandError where
    there is no such program.
    """
    # In the foreground, a terminal's Ctrl-C reaches the program as well. Elsewhere the program has
    # its own process group, and each signal that this process gets is passed on to it once.
    shared = _in_the_foreground()
    try:
        program = subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            start_new_session=not shared,
            preexec_fn=_ends_with_us(),  # noqa: PLW1509 - this process has one thread
        )
    except FileNotFoundError:
        raise CommandError(f"there is no program {command[0]}{_meant(command)}", 127) from None
    except OSError as error:
        words = f"{command[0]} cannot be run: {error}{_meant(command)}"
        raise CommandError(words, 126) from None
    with _signals_passed_on(program, on_interrupt, shared=shared):
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = program.wait(_PERIOD)
                break
            meanwhile()
    return status if status >= 0 else 128 - status


_PR_SET_PDEATHSIG = 1
"""Of ``prctl`` (Linux): the signal that a process gets when its parent ends."""


def _ends_with_us() -> Callable[[], None] | None:
    """Return what a child calls first so that it ends when this process is killed.

    It gets SIGTERM, so that a server can end its own processes. None where no signal can be had.
    """
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # some builds of Python are without it
    except ImportError:
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here, since a child between fork and exec must not
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed meanwhile
            os._exit(1)

    return ask


def _meant(command: Sequence[str]) -> str:
    """Return a question where a file of Python was given in the place of a program."""
    if not (command[0].endswith(".py") and os.path.isfile(command[0])):
        return ""
    return f": did you mean `python {shlex.join(command)}`?"


def _in_the_foreground() -> bool:
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except (OSError, AttributeError):
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextlib.contextmanager
def _signals_passed_on(
    program: subprocess.Popen[bytes], on_interrupt: Callable[[], None], *, shared: bool
) -> Generator[None, None, None]:
    def pass_on(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            on_interrupt()
        with contextlib.suppress(OSError):
            if signal.Signals(number).name not in _OF_A_TERMINAL:
                program.send_signal(number)
            elif not shared:
                os.killpg(program.pid, number)

    before = {
        number: signal.getsignal(number)
        for name in _FORWARDED
        if (number := getattr(signal, name, None)) is not None
    }
    # Also what we were started to ignore, as in the background of a shell's script: the program was
    # too, and may have changed that.
    for number in before:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
