"""The guesses of heads as bars, whichever method they belong to, so that the same step of two methods can stand one below the
other; and the words for what two methods drafted there."""

from collections.abc import Mapping, Sequence

from decoding.trace import Step, Trace
from viz.methods import chimera, clover, medusa
from viz.methods.shared.head_bars import has_numbers
from viz.runs.tally import depths
from viz.tokens import quoted


def context(trace: Trace, cursor: int) -> tuple[int, ...]:
    """The tokens in front of a step: the prompt and all that was committed before it."""
    return trace.header.prompt_tokens + tuple(token for step in trace.steps[:cursor] for token in step.tokens)


def bars_html(trace: Trace, cursor: int) -> str:
    """The bars of Medusa, Clover or Chimera at one step: HTML; "" for other methods, and where a trace lacks the numbers."""
    step, header, token_bytes = trace.steps[cursor], trace.header, trace.token_bytes
    if header.method == "medusa" and step.nodes and medusa.has_heads(step):
        return medusa.heads_html(step, token_bytes)
    if not step.nodes or not has_numbers(step):
        return ""
    if header.method == "clover":
        return clover.line_html(step, header.params, token_bytes)
    return chimera.line_html(step, context(trace, cursor), token_bytes) if header.method == "chimera" else ""


def beside_words(mine: Step, theirs: Step, title: str, token_bytes: Mapping[int, bytes]) -> str:
    """How the drafts of one place differ; plain text.

    Args:
        theirs: the step of the other method, of the name `title`.
        token_bytes: of both.
    """
    if not theirs.nodes:
        return f"{title} drafts nothing here: it draws on steps of its own before this one, and has none."
    said = (
        f"{title} drafts {len(theirs.nodes)} {'token' if len(theirs.nodes) == 1 else 'tokens'}, {max(depths(theirs))} deep, and "
        f"{len(theirs.path)} would be accepted; here {len(mine.nodes)} were drafted and {len(mine.path)} accepted."
    )
    ours, others = paths(mine.nodes), paths(theirs.nodes)
    only = [path for path in others if path not in ours]
    shared = f" {len(others) - len(only)} of its {len(others)} paths are in this draft too"
    return f"{said}{shared}{f'; not {quoted(only[0][-1], token_bytes)}, for one' if only else ''}."


def paths(nodes: Sequence) -> dict[tuple[int, ...], int]:
    """The tokens down to every node -> the node; siblings may repeat a token, the eldest counts."""
    found: list[tuple[int, ...]] = []
    for node in nodes:
        found.append((*(found[node.parent] if node.parent >= 0 else ()), node.token))
    return {path: i for i, path in reversed(tuple(enumerate(found)))}
