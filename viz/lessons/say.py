"""What several lessons say of a run: shares, dice, lists of tokens, options of a question."""

from collections.abc import Iterable, Sequence

from decoding.trace import Node, Step, Trace
from viz.lessons.lesson import Question, token
from viz.lessons.places import border
from viz.verdicts import KEPT, NARROW, percent


def share(value: float | None) -> str:
    return percent(value or 0.0)


def exactly(value: float | None) -> str:
    """A share with a digit more, where the reader can divide.

    >>> exactly(0.2363).replace("\u202f", " ")
    '23.6 %'
    """
    return f"{100 * (value or 0.0):.1f}{NARROW}%"


def dice(node: Node) -> tuple[str, str]:
    """The die and the border, with as many digits as it takes to see on which side it fell."""
    u, edge = node.u or 0.0, border(node)
    for digits in (2, 3, 4, 5):
        if f"{u:.{digits}f}" != f"{edge:.{digits}f}":
            break
    return f"{u:.{digits}f}", f"{edge:.{digits}f}"


def die(node: Node) -> str:
    return dice(node)[0]


def edge(node: Node) -> str:
    return dice(node)[1]


def side(node: Node) -> str:
    return "below" if (node.u or 0.0) < border(node) else "not below"


def listed(trace: Trace, tokens: Iterable[int]) -> str:
    """Tokens as a list in a sentence."""
    return ", ".join(token(trace, one) for one in tokens)


def counted(count: int, word: str) -> str:
    """A number with its noun.

    >>> counted(1, "guess"), counted(2, "guess"), counted(0, "call")
    ('1 guess', '2 guesses', 'no calls')
    """
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count or 'no'} {word if count == 1 else plural}"


def numbers(options: Sequence[int]) -> tuple[str, ...]:
    return tuple("none" if one == 0 else f"{one:,}" for one in options)


def verdict(node: Node) -> int:
    """Place of a node's verdict among the options of a question that asks for it."""
    return VERDICTS.index(KEPT[node.verdict].capitalize())


VERDICTS = ("Kept", "Refused")


def nearest(value: float, options: Sequence[float]) -> int:
    """The option that comes closest."""
    return min(range(len(options)), key=lambda i: abs(options[i] - value))


def how_many_kept(step: Step) -> tuple[str, ...]:
    """Options of a question after the kept guesses of a chain."""
    return numbers(range(len(step.nodes) + 1))


def right_of(question: Question) -> str:
    return question.options[question.right]
