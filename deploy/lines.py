"""A line of the log is a line, whatever it tells of. What visitors send stands in many of them, and in the errors it brings about.

A line break would begin a line that looks like another's, other marks move a terminal's cursor, and an error with all that led to
it is a hundred times as long as what brought it about.
"""

import logging
import traceback

from decoding.limits import limits

LONGEST = 1_000  # characters
PLACES = 4  # of a program, the last that an error came through


def tame() -> None:
    """Have all lines that libraries write on a public server be such lines from now on."""
    make = logging.getLogRecordFactory()

    def made(*what, **how) -> logging.LogRecord:
        record = make(*what, **how)
        return record if is_local() else one_line(record)

    logging.setLogRecordFactory(made)


def one_line(record: logging.LogRecord) -> logging.LogRecord:
    """The record, its text and its error as one printable line."""
    text = record.getMessage()
    if record.exc_info and (error := record.exc_info[1]) is not None:
        places = traceback.extract_tb(error.__traceback__)[-PLACES:]
        text += f" {type(error).__name__}: {error} ({', '.join(f'{p.filename}:{p.lineno} {p.name}' for p in places)})"
    record.msg = text[:LONGEST].encode("unicode_escape").decode("ascii")
    record.args, record.exc_info, record.exc_text, record.stack_info = (), None, None, None
    return record


def is_local() -> bool:
    """A mode that is none is not: what is wrong with it has to be written somewhere."""
    try:
        return not limits().public
    except ValueError:
        return False
