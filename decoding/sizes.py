"""How much there is in a trace, or in a part of one, of what pages look through: what `decoding.limits` bounds."""

from collections.abc import Mapping, Sequence

from decoding.limits import Sizes
from decoding.trace import Step, Trace


def sizes_of(trace: Trace) -> Sizes:
    """Of a whole trace; its text is the prompt and the answer."""
    texts = [trace.header.prompt, *(turn.content for turn in trace.header.messages)]
    return sizes(trace.steps, trace.token_bytes, trace.header.prompt_tokens, sum(map(len, texts)))


def sizes(steps: Sequence[Step], token_bytes: Mapping[int, bytes], before: Sequence[int] = (), said: int = 0) -> Sizes:
    """Of some steps.

    Args:
        before: tokens of the text in front of them.
        said: characters of what is said as a text.
    """
    text = [*before, *(token for step in steps for token in step.tokens)]
    nodes = [node for step in steps for node in step.nodes]
    return Sizes(
        steps=len(steps),
        nodes=max((len(step.nodes) for step in steps), default=0),
        said=said + sum(max(1, len(token_bytes.get(token, b""))) for token in text),
        text=len(text),
        scores=sum(len(node.scores) for node in nodes),
        names=len(token_bytes),
        pieces=sum(map(len, token_bytes.values())),
        drafted=sum(len(token_bytes.get(node.token, b"")) for node in nodes),
    )
