"""What went wrong, in a sentence: for a page, a study or the evaluation, which go on with the next run.

A visitor of a public server sees no path of the server and nothing that tells whether a file is there: such a sentence goes to the
log, under a number that the visitor is told.
"""

import re
import secrets
import sys
import traceback

from decoding.checks import Quoted
from decoding.limits import limits
from decoding.models.panics import is_panic
from decoding.runs.log import log

PATH = re.compile(r"(?<![\w/.])(?:~|\.{1,2}|/|[A-Za-z]:)?[\\/](?=[\w.~-])[^\s'\"”]{0,255}[\w]|[A-Za-z]:\\")
INNER = re.compile(r"\b\w+\.(?:py|so|safetensors|sqlite|gguf)\b|Errno|site-packages")  # what only the machine is made of


class Elsewhere(Exception):
    """What broke in another process; its text is the sentence that was made of it there."""


def sentence(error: BaseException) -> str:
    """Of whatever a run raised, for whoever looks at a page."""
    return told(error, words(error))


def words(error: BaseException) -> str:
    """Of whatever a run raised, as it is; a ValueError is a sentence already."""
    torch = sys.modules.get("torch")  # not imported: a page that shows a recorded run does without it
    if is_panic(error):
        return f"A library broke over what it was given: {error}"
    if isinstance(error, MemoryError):
        return "This machine is out of memory. Lower the token limit or the tree size, or choose a smaller model."
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "The device is out of memory. Lower the token limit or the tree size, or choose a smaller model."
    return str(error) if isinstance(error, ValueError | Elsewhere) else f"The step failed: {type(error).__name__}: {error}"


def told(error: BaseException, said: str | None = None) -> str:
    """What whoever looks at a page may see of an error.

    Args:
        said: the sentence about it; None: its own text.
    """
    said = str(error) if said is None else said
    if not limits().public:
        return said
    number = secrets.token_hex(4)
    if isinstance(error, Quoted) or isinstance(error, ValueError) and not shows_the_machine(said):
        log("refused", number=number, kind=type(error).__name__, said=said)
        return said
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-8:]]
    log("failed", number=number, kind=type(error).__name__, error=f"{said}", where=where)
    return f"That did not work. Whoever runs this server finds the reason in its log under the number {number}."


def shows_the_machine(text: str) -> bool:
    """
    >>> shows_the_machine("It cannot be kept in '/srv/x': full."), shows_the_machine("p/q is 0.3, tokens/s, org/model, 1 / 2")
    (True, False)
    """
    return bool(PATH.search(text) or INNER.search(text))
