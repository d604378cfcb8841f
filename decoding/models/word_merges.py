"""Merging the tokens of one text inside its words: byte-pair encoding on the fly. No model, and no vocabulary that is kept.

Feher, Vulić and Minixhofer, ACL 2025, https://arxiv.org/abs/2411.18553, section 3: count the adjacent pairs inside words, merge the
most frequent one everywhere, repeat.

Departures: the counts are those of one text, not of a batch; the first and the last token stay as they are, so that the row behind
the text is read at a token that the target knows; a word has `MOST_PIECES` pieces at most, about as many as ZeTT's network reads.
Of equally frequent pairs the shorter one is merged, then the earlier.
"""

from collections.abc import Iterator, Sequence

MOST_PIECES = 8  # of a merged word; ZeTT reads 7
Group = tuple[int, ...]  # the tokens of one
Pair = tuple[Group, Group]


def fused_at(tokens: Sequence[int], pieces: Sequence[bytes]) -> tuple[int, ...]:
    """(n - 1,) for each border between two of n tokens the number of the merge that takes it away, from 1; 0: none does.

    Args:
        pieces: the bytes of every token.

    >>> fused_at((0, 1, 2, 1, 2, 3, 4), (b"The", b" gr", b"een", b" gr", b"een", b"est", b"."))
    (0, 1, 0, 1, 2, 0)
    """
    inside = inside_words(pieces)
    size = {token: len(piece) for token, piece in zip(tokens, pieces, strict=True)}
    groups, starts = [(token,) for token in tokens], list(range(len(tokens)))
    fused = [0] * len(inside)
    for number in range(1, len(tokens)):
        counts: dict[Pair, int] = {}
        for i in range(1, len(groups) - 2):
            if inside[starts[i + 1] - 1] and len(groups[i]) + len(groups[i + 1]) <= MOST_PIECES:
                pair = groups[i], groups[i + 1]
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        chosen = max(counts, key=lambda pair: (counts[pair], -sum(size[token] for part in pair for token in part)))
        for border in merged(groups, starts, inside, chosen):
            fused[border] = number
    return tuple(fused)


def merged(groups: list[Group], starts: list[int], inside: Sequence[bool], chosen: Pair) -> Iterator[int]:
    """Merge a pair everywhere, from the left; both lists are changed. The borders that go."""
    i = 1
    while i < len(groups) - 2:
        border = starts[i + 1] - 1
        if inside[border] and (groups[i], groups[i + 1]) == chosen:
            groups[i : i + 2] = [chosen[0] + chosen[1]]
            del starts[i + 1]
            yield border
        i += 1


def inside_words(pieces: Sequence[bytes]) -> list[bool]:
    """For each border between two tokens whether letters touch there, or it goes through a letter.

    >>> inside_words([b"caf", b"\\xc3", b"\\xa9", b" no", b"ir", b"'s", b"2", b"nd"])
    [True, True, False, True, False, False, False]
    """
    letters = letters_of(b"".join(pieces))
    found, at = [], 0
    for piece in pieces[:-1]:
        at += len(piece)
        found.append(0 < at < len(letters) and letters[at - 1] and letters[at])
    return found


def letters_of(text: bytes) -> list[bool]:
    """For each byte whether it belongs to a letter; what is no UTF-8 does not."""
    found: list[bool] = []
    for character in text.decode("utf-8", "surrogateescape"):
        found += [character.isalpha()] * len(character.encode("utf-8", "surrogateescape"))
    return found
