"""Says what went wrong, once per cause.

The library runs inside programs that must not fall over and must not drown in log lines. Every
fault of ours is caught where it happens and handed to :func:`once`; the program's own call goes on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable

_reported: set[tuple[str, Hashable]] = set()


def once(logger: logging.Logger, cause: Hashable, message: str, *args: object) -> None:
    """Log ``message % args`` as a warning, unless ``logger`` has reported ``cause`` before.

    Inside an ``except`` block the traceback is logged with it. Never raises, not even where a
    logging handler of the program does.
    """
    _log(logger, cause, message, args, with_traceback=sys.exc_info()[0] is not None)


def in_one_line(logger: logging.Logger, cause: Hashable, message: str, *args: object) -> None:
    """Do as :func:`once` does, for what is nobody's fault: without a traceback."""
    _log(logger, cause, message, args, with_traceback=False)


def _log(
    logger: logging.Logger,
    cause: Hashable,
    message: str,
    args: tuple[object, ...],
    *,
    with_traceback: bool,
) -> None:
    try:
        key = (logger.name, cause)
        if key in _reported:
            return
        _reported.add(key)  # before logging: a handler may hand work off, and fail in the same way
        logger.warning(message, *args, exc_info=with_traceback)
    except Exception:  # noqa: S110 - there is nobody left to tell
        pass
