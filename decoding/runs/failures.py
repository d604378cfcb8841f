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

PATH = re.compile(r"(?<![\w/.])(?:~|\.{1,2}|/|[A-Za-z]:)?[\\/](?=[\w.~-])[^\s'\"”]*[\w]|[A-Za-z]:\\")
INNER = re.compile(r"\b\w+\.(?:py|so|safetensors|sqlite|gguf)\b|Errno|site-packages")  # what only the machine is made of


def sentence(error: BaseException) -> str:
    """Of whatever a run raised; a ValueError is a sentence already."""
    torch = sys.modules.get("torch")  # not imported: a page that shows a recorded run does without it
    if is_panic(error):
        said = f"A library broke over what it was given: {error}"
    elif isinstance(error, MemoryError):
        said = "This machine is out of memory. Lower the token limit or the tree size, or choose a smaller model."
    elif torch is not None and isinstance(error, torch.OutOfMemoryError):
        said = "The device is out of memory. Lower the token limit or the tree size, or choose a smaller model."
    else:
        said = str(error) if isinstance(error, ValueError) else f"The step failed: {type(error).__name__}: {error}"
    return told(error, said)


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
