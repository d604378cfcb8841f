"""Prompt lookup: copy what followed an earlier occurrence of the last few tokens.

Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding (no paper). Departures, all of them parameters: the latest
match is preferred to the first (which is often boilerplate), and a copy that reaches the end of the context may go on copying
from itself, so that periodic text drafts `length` tokens. As in transformers, a copy shorter than `length` is allowed.
"""

from dataclasses import asdict, dataclass

from decoding.drafting.lookup import FIRST, LATEST, Lookup
from decoding.method import Method, param
from decoding.verify import match


@dataclass(frozen=True)
class Params:
    ngram: int = param(
        3, "Longest n-gram", "Tokens at the end of the text that are looked for; shorter ones if needed.", low=1, high=8
    )
    length: int = param(10, "Copy length", "Tokens to copy behind the match.", low=1, high=64)
    which: str = param(
        LATEST,
        "Which match",
        "Where several match: the last one in the text or the first.",
        choices=(LATEST, FIRST),
    )
    overlap: bool = param(True, "Copy from the copy", "At the end of the text go on with the copied tokens themselves.")


METHOD = Method(
    key="prompt_lookup",
    title="Prompt lookup",
    paper="https://github.com/apoorvumang/prompt-lookup-decoding",
    authors="Saxena 2023",
    year=2023,
    group="copies",
    line="Finds the last words further up in the text and copies what followed them.",
    idea=(
        "Text repeats itself. Find where the last few tokens stood before and draft what followed there: no draft model, no "
        "training, no cost."
    ),
    algorithm=(
        "Take the last n tokens, for n from the longest n-gram down to 1.",
        "Look for the same n tokens earlier in the text; take the tokens behind them as a chain.",
        "The target reads the chain in one call, draws its own token at every position and keeps the draft while they agree.",
    ),
    lossless="The draft is a function of the text and is only ever compared with what the target draws itself.",
    params=Params,
    build=lambda family, params, sampling: (Lookup(family.target.ends, **asdict(params)), match),
)
