"""What the infini-gram lens sees: the longest match at every token of a text, and what is counted behind it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Bits, Count, Share, Text, Token, Tokens, Word

MOST = 1024  # tokens of a text


class At(msgspec.Struct, frozen=True):
    """One token of the text, as it was guessed from what stands before it."""

    token: Token
    n: Count  # tokens of the longest match and this one; 0: not looked up yet
    count: Count  # occurrences of the match
    share: Share  # of them that go on with this token: its infini-gram probability
    sparse: bool  # all go on with one and the same token
    p: Share  # the target's, at temperature 1
    entropy: Bits  # of the target's


class Next(msgspec.Struct, frozen=True):
    """One token that might come next at the cursor."""

    token: Token
    share: Share
    p: Share  # at temperature 1
    q: Share | None  # the drafter's, as the run has it; None where it had none there


class InfinigramLook(Look, frozen=True, kw_only=True, tag="infinigram"):
    store: Word = ""  # what was searched
    size: Count = 0  # its tokens
    matched: Tokens = ()  # the longest match at the cursor, at most its last 64 tokens
    n: Count = 0  # its length and 1
    count: Count = 0
    title: Word = ""  # a document that it stands in
    following: Annotated[tuple[Next, ...], Meta(max_length=64)] = ()  # by share, then by p
    said: Text = ""  # whose tokens these are
    text: Annotated[tuple[At, ...], Meta(max_length=MOST)] = ()


LOOK = InfinigramLook
