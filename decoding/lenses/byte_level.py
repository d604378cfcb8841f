"""Byte-level probabilities: what the target says of the next byte, wherever the text ends.

Phan et al., ICLR 2025, https://arxiv.org/abs/2410.09303, sections 3 and 4; the algorithm is `decoding.models.byte_view`. Three
answers side by side: *plain*, the tokens as they stand; *token healing*, the last token taken back and drawn again; *exact*, the
sum over the cover. And along the last bytes how far the first two are off.

Departures: the temperature acts on the token row before the sum, which alone equals sampling tokens at that temperature. Token
healing is the usual one-token form. In front of a first word a text has no tokens to go on from; the mark that ends texts stands
there then, as it did in training.

A second model may be mixed in (section 5, the ensembles): (1 - share) of the one exact next byte and share of the other's, whose
tokens may be others. The paper averages; here the share is free.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from decoding.checks import Quoted
from decoding.lens import BLOCK, Cost, Cursor, Lens, place_of
from decoding.looks.byte_level import MOST_COVERS, ByteLook, Covered, Reading
from decoding.method import param
from decoding.models.byte_drafter import find
from decoding.models.byte_drafter import lacking as apart
from decoding.models.byte_view import REACH, ByteView, TargetRows, unfinished, view
from decoding.models.family import Family
from decoding.models.speller import cover_of, lacking
from decoding.models.spelling import Spelling
from decoding.sample import Sampling
from decoding.trace import Trace

METER = 24  # bytes along which the errors are read
EACH = 12  # rows of one of them, at most on average
SHOWN = 200  # bytes of the text
LONGEST_WORD = 160  # bytes: each of thousands of candidates is spelled with all of the word in front


@dataclass(frozen=True)
class Params:
    cut: int = param(0, "Characters off the end", "So many characters of the text are taken away first.", low=0, high=60)
    typed: str = param("", "And typed on", "What stands behind the text instead, as half a word.", longest=60)
    temperature: float = param(1.0, "Temperature", "Of the token row, before anything is summed.", low=0.1, high=2.0)
    share: float = param(
        0.0,
        "Share of a second model",
        "Mixes in the next byte of the draft model, if it has tokens of its own, or of the small one that ships; 0: not asked.",
        low=0.0,
        high=1.0,
    )
    meter: bool = param(True, "Along the text", "Also how far off the plain way is at each of the last bytes.")


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[ByteLook | None]:
    """What is fixed and the text behind it; refused where nothing is left of that. The vocabulary is sorted here, once."""
    if params.share and (reason := apart(family)):
        raise ValueError(reason)
    cover_of(family.tokenizer, family.target.vocab)
    marks, text = split(family, place_of(trace, cursor).context)
    text = without(text, params.cut) + params.typed.encode()
    if not text:
        raise ValueError(f"Nothing is left of the text when {params.cut:,} characters are taken off its end.")
    return looks(family, marks, text, params)


def split(family: Family, context: tuple[int, ...]) -> tuple[tuple[int, ...], bytes]:
    """The tokens up to the last mark, such as the end of a turn, which are settled; and the text behind it."""
    special = set(family.special_tokens)
    start = max((i + 1 for i, token in enumerate(context) if token in special), default=0)
    pieces = family.token_bytes(context[start:])
    return context[:start], b"".join(pieces[token] for token in context[start:])


def without(text: bytes, characters: int) -> bytes:
    """The text without its last characters; half of one counts as one."""
    while characters and text:
        half = unfinished(text) or not text[-1] < 0x80
        text = text[:-1]
        while half and text and text[-1] & 0xC0 == 0x80:
            text = text[:-1]
        if half and text and text[-1] >= 0xC0:
            text = text[:-1]
        characters -= 1
    return text


def looks(family: Family, marks: tuple[int, ...], text: bytes, params: Params) -> Iterator[ByteLook | None]:
    """First the place itself, then the bytes before it, one look for each."""
    cover = cover_of(family.tokenizer, family.target.vocab)
    speller = cover.speller
    first = max(1, len(text) - METER + 1) if params.meter else len(text)
    border, own = speller.border(text[:first]), speller.border(text)
    if len(text) - border > LONGEST_WORD:
        raise ValueError(
            f"The text ends in a word of {len(text) - border:,} bytes without a break; all spellings are tried of at most "
            f"{LONGEST_WORD:,}, or others wait for it too long."
        )
    fixed, notes = settled(family, marks, speller.encode([text[:border]])[0])
    rows = TargetRows(family.target, (), Sampling(params.temperature))
    yield from rows.following(fixed, BLOCK)
    here = view(cover, text[border:], rows, own - border)
    found = seen(family, text, text[own:], here, rows)
    second = beside(family, text, params.temperature) if params.share else ()
    found = msgspec.structs.replace(found, notes=(*notes, *said_of(text, own, here)), second=second, share=params.share)
    yield found
    meter: list[Reading] = []
    for end in range(first, len(text) + 1) if params.meter else ():
        at = here
        if end < len(text):
            at = view(cover, text[border:end], rows, max(0, speller.border(text[:end]) - border))
        meter.append(Reading(text[end - 1 : end], at.plain_error, at.healed_error, len(at.members)))
        yield msgspec.structs.replace(found, meter=tuple(meter), rows_read=rows.read)


def beside(family: Family, text: bytes, temperature: float) -> tuple[float, ...]:
    """(257,) the exact next byte of the second model, which is told the text in its own tokens."""
    other = find(family)
    cover, words = cover_of(other.tokenizer, other.model.vocab), Spelling(other.tokenizer)
    border = cover.speller.border(text)
    fixed = [*words.front, *cover.speller.encode([text[:border]])[0]] or sorted(other.model.ends)[:1]
    if not fixed:
        raise ValueError(
            "The text is a single word, and the second model has no mark in front of texts; put a few words before it."
        )
    fixed = fixed[-(other.model.context - 2 * REACH) :]
    return tuple(view(cover, text[border:], TargetRows(other.model, fixed, Sampling(temperature))).exact.tolist())


def settled(family: Family, marks: tuple[int, ...], tokens: list[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The tokens that no ending of the text changes, at least one, and what has to be said of them."""
    fixed, most = (*marks, *tokens), family.target.context - 2 * REACH
    if len(fixed) > most:
        return fixed[-most:], (f"Only the last {most:,} tokens in front of the word are read, for the context holds no more.",)
    if fixed:
        return fixed, ()
    if not family.target.ends:
        raise ValueError("The text is a single word, and this target has no mark in front of texts; put a few words before it.")
    return (min(family.target.ends),), ("The text is a single word: the mark that ends texts stands in front of it.",)


def seen(family: Family, text: bytes, word: bytes, here: ByteView, rows: TargetRows) -> ByteLook:
    """A view as plain data."""
    if not here.p > 0:
        raise Quoted(
            f"The target gives what ends in {text[-24:].decode(errors='replace')!r} no probability that a number can hold."
        )
    shown = here.members[:MOST_COVERS]
    named = {token for one in shown for token in one.tokens} | set(here.spelled)
    settled = len(b"".join(family.token_bytes([t])[t] for t in here.spelled)) - len(word)
    return ByteLook(
        text=text[-SHOWN:],
        word=word,
        spelled=behind(family, here.spelled, settled),
        covers=tuple(Covered(behind(family, one.tokens, settled), one.beyond, one.p / here.p) for one in shown),
        members=len(here.members),
        plain=tuple(here.plain.tolist()),
        healed=tuple(here.healed.tolist()),
        exact=tuple(here.exact.tolist()),
        plain_error=here.plain_error,
        healed_error=here.healed_error,
        kept=here.kept,
        unchecked=here.unchecked,
        row_cut=here.row_cut,
        rows_read=rows.read,
        token_bytes=family.token_bytes(named),
    )


def behind(family: Family, tokens: tuple[int, ...], settled: int) -> tuple[int, ...]:
    """The tokens behind the first `settled` bytes, which are whole tokens."""
    ends = np.cumsum([len(family.token_bytes([t])[t]) for t in tokens])
    return tokens[int(np.searchsorted(ends, settled, side="right")) if settled > 0 else 0 :]


def said_of(text: bytes, own: int, here: ByteView) -> Iterator[str]:
    """What whoever looks at it should know."""
    if unfinished(text):
        yield "The text ends inside a character; its missing bytes are part of what comes next."
    if len(text) - own > REACH:
        yield f"The last word has {len(text) - own:,} bytes: spellings that part from it more than {REACH} bytes back are left out."
    if here.kept < 0.95:
        yield f"Of the probability of this text {1 - here.kept:.0%} belongs to spellings that the tokenizer would never write."


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    return Cost(len(place_of(trace, cursor).context) + 2 * REACH + len(params.typed) + (METER * EACH if params.meter else 0))


LENS = Lens(
    key="byte_level",
    title="Byte-level probabilities",
    paper="https://arxiv.org/abs/2410.09303",
    authors="Phan et al., ICLR 2025",
    year=2024,
    scope="position",
    asks="What comes next if the text ends in the middle of a token?",
    idea=(
        "A prompt that ends inside a word, or in a space, is cut into tokens that the model has never seen there, and its next "
        "byte is wrong although the model is right. The exact one is the sum over all ways to spell the text."
    ),
    reading=(
        "Each row is one way to spell the last word, hatched where its last token reaches beyond the text; the bars say which byte "
        "comes next when that is ignored, when the last token is taken back, and exactly."
    ),
    checks="The probabilities of the ways to spell a text add up to P(text), and so do those of all its next bytes.",
    ours=(
        "Which spellings are valid is tried with the tokenizer itself and six endings; the search stops when all but 0.01 % of the "
        "probability was checked."
    ),
    params=Params,
    look=look,
    cost=cost,
    lacks=lacking,
)
