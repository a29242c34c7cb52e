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
    try:
        key = (logger.name, cause)
        if key in _reported:
            return
        _reported.add(key)  # before logging: a handler may hand work off, and fail in the same way
        logger.warning(message, *args, exc_info=sys.exc_info()[0] is not None)
    except Exception:  # noqa: S110 - there is nobody left to tell
        pass
