"""Image families: a target with a file raster.json beside its config, whose tokens are pixels and whose prompts are a few words.

Everything that such a family adds is checked here: what the file says, what a prompt may ask for, and what a prompt of token ids
may hold, which is the words and the first pixels of a picture that is to be finished.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from decoding.checks import Quoted
from decoding.limits import limits
from decoding.models.names import IMAGE_TARGETS
from decoding.trace import Raster

RASTER = "raster.json"
MAX_FILE = 2**20  # bytes
SHIPPED = Path(__file__).parent.parent
OPEN = "any"  # the word that leaves a place of the prompt open, where it can be left open


def raster_of(folder: Path) -> Raster | None:
    """The raster of a model's folder; None for a model of text.

    Raises:
        ValueError: there is a file, and it says nothing that can be a raster.
    """
    file = folder / RASTER
    if not os.path.isfile(file):  # which is False for a name that no file can have
        return None
    if file.stat().st_size > MAX_FILE:
        raise ValueError(f"{RASTER} in {str(folder)!r} has {file.stat().st_size:,} bytes; at most {MAX_FILE:,} are read.")
    try:
        return msgspec.json.decode(file.read_bytes(), type=Raster)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ValueError(f"{RASTER} in {str(folder)!r} describes no picture: {error}.") from error


def raster_named(target: str) -> Raster | None:
    """The raster of what a target is called by, before it is loaded, as far as it is on this machine; None if there is none, or it
    is damaged, of which loading the target speaks. A target that this server does not offer is not looked for: traces name any."""
    if not target or not limits().allows(target):
        return None
    try:
        return raster_of(SHIPPED / IMAGE_TARGETS[target] if target in IMAGE_TARGETS else Path(target))
    except (OSError, ValueError):
        return None


def check_raster(raster: Raster, vocabulary: Mapping[str, int], context: int, name: str) -> None:
    """Refuse a raster that does not fit the target it lies beside (ValueError)."""
    if len(raster.palette) > len(vocabulary):
        raise ValueError(f"{RASTER} of {name!r} has {len(raster.palette)} colours; the target has {len(vocabulary)} tokens.")
    if strange := [word for words in raster.asks for word in words if word not in vocabulary]:
        raise ValueError(f"{RASTER} of {name!r} lets one ask for {strange[0]!r}, which is no token of the target.")
    if not raster.asks:
        raise ValueError(f"{RASTER} of {name!r} lets one ask for nothing: every text needs a word to begin with.")
    if (needed := len(raster.asks) + raster.pixels) != context:
        raise ValueError(
            f"{RASTER} of {name!r} makes texts of {needed:,} tokens, words and pixels, and the context of the target is "
            f"{context:,}; it must be as long, so that a picture ends where it is whole."
        )


def words_of(raster: Raster, vocab: int) -> tuple[int, ...]:
    """The ids that are no pixels: they are read in prompts, and never drawn, however little probability the target leaves them."""
    return tuple(range(len(raster.palette), vocab))


def check_asked(raster: Raster, prompt: str, name: str) -> None:
    """Refuse a prompt that says nothing that can be drawn; the ValueError lists what can be asked for."""
    words = prompt.split()
    if len(words) != len(raster.asks) or not all(word in slot for word, slot in zip(words, raster.asks, strict=True)):
        raise Quoted(f"The prompt is {prompt.strip()[:200]!r}, and {name} draws only what it was taught: {askable(raster)}.")


def check_pixels(raster: Raster, words: Sequence[str], tokens: Sequence[int], name: str) -> None:
    """Refuse token ids that are no prompt followed by pixels (ValueError).

    Args:
        words: what the tokens are, one each.
    """
    said = len(raster.asks)
    check_asked(raster, " ".join(words[:said]), name)
    if strange := [token for token in tokens[said:] if token >= len(raster.palette)]:
        raise ValueError(f"The prompt has the token {strange[0]} among the pixels, which have ids below {len(raster.palette)}.")


def open_prompt(raster: Raster) -> tuple[str, ...]:
    """The words of the prompt that says nothing of the picture: `any` wherever there is a choice; () if one place has no such word.

    >>> open_prompt(Raster(2, 2, ("#000000", "#ffffff"), (("red", "any"), ("circle",))))
    ('any', 'circle')
    >>> open_prompt(Raster(2, 2, ("#000000", "#ffffff"), (("red", "blue"), ("circle",))))
    ()
    """
    said = tuple(OPEN if OPEN in words else words[0] for words in raster.asks)
    forced = all(word == OPEN or len(words) == 1 for word, words in zip(said, raster.asks, strict=True))
    return said if forced and OPEN in said else ()


def askable(raster: Raster) -> str:
    """What can be asked for, in words.

    >>> askable(Raster(2, 2, ("#000000", "#ffffff"), (("red", "blue"), ("circle",))))
    'one of red, blue, then circle'
    """
    parts = [words[0] if len(words) == 1 else f"one of {', '.join(words)}" for words in raster.asks]
    return ", then ".join(parts)
