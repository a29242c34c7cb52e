"""Logs a warning about a fault, once per cause.

The library must not break the program that it runs in, nor flood its log. Every fault of the
library is caught where it happens and passed to :func:`once`; the program's own call goes on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable

_reported: set[tuple[str, Hashable]] = set()


def once(logger: logging.Logger, cause: Hashable, message: str, *args: object) -> None:
    """Log ``message % args`` as a warning, unless ``logger`` has reported ``cause`` before.

    Inside an ``except`` block the traceback is logged too. Never raises, even if a logging handler
    of the program raises.
    """
    _log(logger, cause, message, args, with_traceback=sys.exc_info()[0] is not None)


def in_one_line(logger: logging.Logger, cause: Hashable, message: str, *args: object) -> None:
    """Log as :func:`once` does, but without a traceback: the cause is expected, and no bug."""
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
    except Exception:  # noqa: S110 - logging itself failed, so this cannot be reported
        pass
