"""Every message that the library logs is on the page where its users look for it."""

from __future__ import annotations

import ast
import re

import pytest
from pages import REPOSITORY, blocks

SOURCE = REPOSITORY / "src" / "otel_concurrency"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def logged(tree):
    """Return the formats in a module that are passed on with a logger, or to one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        of_logger = (
            isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and ast.unparse(node.func.value) == "_logger"
        )
        to_logger = any(ast.unparse(argument) == "_logger" for argument in node.args)
        place = 0 if of_logger else 2
        if (of_logger or to_logger) and len(node.args) > place:
            message = node.args[place]
            assert isinstance(message, ast.Constant), ast.unparse(node)
            yield re.sub(r"%[srd]", "…", message.value)


MESSAGES = sorted(
    {
        message
        for path in SOURCE.rglob("*.py")
        for message in logged(ast.parse(path.read_text(encoding="utf-8")))
    }
)
SHOWN = [block.code.strip() for block in blocks("text") if block.page == "troubleshooting"]


def test_messages_are_found():
    """The reader of messages, on which this file rests, sees each form that the code has."""
    source = """
_logger.warning("one %s", 1)
faults.once(_logger, "cause", "two %r: %d", 1, 2)
report(_logger, ("cause", 1), "three", 1)
other.warning("none")
"""
    assert list(logged(ast.parse(source))) == ["one …", "two …: …", "three"]


def test_every_logger_has_the_name_that_is_looked_for():
    """Loggers are called `_logger`, so that none of their messages is missed."""
    for path in SOURCE.rglob("*.py"):
        for name in re.findall(r"(\w+)(?:: [\w.]+)? = logging\.getLogger", path.read_text("utf-8")):
            assert name in ("_logger", "logger"), path


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_on_the_page(message):
    """Whoever searches the page for the words of the log finds them."""
    assert message in SHOWN


def test_page_has_no_other_messages():
    """What is not logged any more is not on the page."""
    assert sorted(SHOWN) == MESSAGES
