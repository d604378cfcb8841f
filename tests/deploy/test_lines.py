"""`deploy/lines.py`: nothing that anybody sends begins a line of the log, moves a terminal's cursor, or fills the disk."""

import io
import logging

import pytest

from deploy import lines
from deploy.lines import LONGEST, tame

HOSTILE = ["a\nWARNING forged", "\x1b[2J", "\r", "\u2028x", "\x85", "\u202e", "%s %d", "x" * 9_000]


@pytest.fixture
def log(monkeypatch):
    """A logger of a library and what it wrote."""
    monkeypatch.setattr(logging, "_logRecordFactory", logging.LogRecord)  # another test may have imported the service
    tame()
    out, made = io.StringIO(), logging.Logger("library")
    made.addHandler(logging.StreamHandler(out))
    return made, out


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_is_a_line(log, monkeypatch, text):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    logger, out = log
    logger.warning("no handler for %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("broke", stack_info=True)
    first, second, rest = out.getvalue().split("\n")
    assert not rest and first.isprintable() and second.isprintable() and len(first + second) <= 4 * LONGEST
    assert first.startswith("no handler for") and "ValueError" in second and ("test_lines.py" in second or len(text) > LONGEST)


def test_on_a_server_of_ones_own_errors_are_told_at_length(log, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    logger, out = log
    try:
        raise ValueError("a")
    except ValueError:
        logger.exception("broke")
    assert "Traceback" in out.getvalue()


def test_a_mode_that_is_none_stops_no_line(log, monkeypatch):
    def limits():
        raise ValueError("DRAFTSCOPE_MODE must be local or public; it is 'open'.")

    monkeypatch.setattr(lines, "limits", limits)
    logger, out = log
    logger.warning("what is\nwrong")
    assert out.getvalue() == "what is\\nwrong\n"
