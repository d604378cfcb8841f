"""What is particular to Chimera: the three tokens that a slot reads, and which part of a token's logit the imitated state adds.

A head is linear in the target's true state h and in the imitated state o, so that every logit is a sum of two: what the target knew
before, and what the draft added.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from decoding.score_names import FROM_H, FROM_O, JOINT, OWN
from decoding.trace import Step, Trace
from viz.methods.shared.head_bars import has_numbers, head_title, line, line_html, side_by_side
from viz.runs.tally import depths
from viz.style import LOOKS, SERIES_LINE, SERIES_STRIPES, with_mark
from viz.tokens import as_html, full_name, name, quoted
from viz.words import node_name, number

PARTS = (("from h, the true state", "p"), ("from o, the imitated state", "q"))  # label, look
TOKENS = 5  # per head in the picture


def has_split(step: Step) -> bool:
    """Whether the nodes carry both parts of their logits; an imported trace may not."""
    return all(FROM_H in node.scores and FROM_O in node.scores for node in step.nodes)


# -- the heads down one path -------------------------------------------------------------------------------------------


def trigram(step: Step, parent: int, before: Sequence[int]) -> list[int]:
    """The three tokens that the slot at a node (-1: the root) read, the newest last.

    Args:
        before: the text up to the root, the root included.
    """
    path: list[int] = []
    while parent >= 0:
        path.insert(0, step.nodes[parent].token)
        parent = step.nodes[parent].parent
    text = [*before, *path]
    return [*[text[0]] * (3 - len(text)), *text[-3:]] if text else []


def window_html(step: Step, parent: int, before: Sequence[int], token_bytes: Mapping[int, bytes]) -> str:
    """Those three tokens, the guessed ones underlined: HTML."""
    depth = depths(step)[parent] if parent >= 0 else 0
    tokens = trigram(step, parent, before)
    cells = "".join(
        f'<span style="border:1px solid #8886;padding:0 .25rem;{"text-decoration:underline" * (len(tokens) - i <= depth)}">'
        f"{as_html(name(token, token_bytes))}</span>"
        for i, token in enumerate(tokens)
    )
    return f'<div style="display:flex;gap:.2rem;font-size:.78rem;margin-top:.35rem">reads {cells}</div>'


def guesses_html(trace: Trace, cursor: int) -> str:
    """The heads side by side down one path, each with the tokens that its slot read; "" where the trace lacks the numbers: HTML."""
    step, before, token_bytes = trace.steps[cursor], trace.tokens_before(cursor), trace.token_bytes
    if not step.nodes or not has_numbers(step):
        return ""
    read = "; ".join(
        f"head {k} {', '.join(name(t, token_bytes) for t in trigram(step, at, before))}" for k, at in enumerate(line(step), 1)
    )
    return line_html(step, token_bytes, lambda at: window_html(step, at, before, token_bytes), f"Read: {read}.")


# -- the two parts of a logit ------------------------------------------------------------------------------------------


def split(step: Step, parent: int) -> list[tuple[int, float, float]]:
    """The most probable children of a node, the best first: (index, what h and what o give it), each more than the least of them.

    What is given to all of them alike changes no probability, so only differences are looked at.
    """
    children = [i for i, node in enumerate(step.nodes) if node.parent == parent]
    best = sorted(children, key=lambda i: -step.nodes[i].scores[OWN])[:TOKENS]
    least = [min((step.nodes[i].scores[part] for i in best), default=0.0) for part in (FROM_H, FROM_O)]
    return [(i, step.nodes[i].scores[FROM_H] - least[0], step.nodes[i].scores[FROM_O] - least[1]) for i in best]


def turned(step: Step, parent: int) -> tuple[int, int] | None:
    """(the best child, the child that h alone would have put first), where they differ: won by what the draft added."""
    best = split(step, parent)
    if not best:
        return None
    alone = max(best, key=lambda one: one[1])
    return (best[0][0], alone[0]) if alone[1] > best[0][1] else None


def split_html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """Per head down one path, two bars for each of its best tokens: from h and from o: HTML."""
    most = max((value for at in line(step) for _, *both in split(step, at) for value in both), default=0.0) or 1.0
    keys = "".join(
        f'<span><i style="background:{SERIES_STRIPES[look]};border-color:{SERIES_LINE[look]}"></i> {label}</span>'
        for label, look in PARTS
    )
    columns = [split_bars(step, at, head_title(step, k, at, token_bytes), most, token_bytes) for k, at in enumerate(line(step), 1)]
    return f'<div class="ds-keys">{keys}</div>{side_by_side(columns, split_alt(step, token_bytes))}'


def split_bars(step: Step, parent: int, title: str, most: float, token_bytes: Mapping[int, bytes]) -> str:
    """Of one head."""
    rows = "".join(
        f'<div class="ds-bars-name{" ds-bars-now" * (step.nodes[i].verdict == "accepted")}">{LOOKS[step.nodes[i].verdict].mark} '
        f'{as_html(name(step.nodes[i].token, token_bytes))}</div><div class="ds-bars-group">'
        + "".join(
            f'<div><i style="--w:{100 * value / most:.2f}%;background:{SERIES_STRIPES[look]};border-color:{SERIES_LINE[look]}"></i>'
            f"<span>{number(value, 2)}</span></div>"
            for value, (_, look) in zip(both, PARTS, strict=True)
        )
        + "</div>"
        for i, *both in split(step, parent)
    )
    return f'<div><b>{title}</b><div class="ds-bars">{rows}</div></div>'


def split_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The bars in words; plain text."""
    parts = []
    for k, at in enumerate(line(step), 1):
        listed = (f"{name(step.nodes[i].token, token_bytes)} {number(h, 2)} and {number(o, 2)}" for i, h, o in split(step, at))
        parts.append(f"head {k}: {', '.join(listed)}")
    return "What h and what o give to the best tokens of every head, more than to the least of them. " + "; ".join(parts) + "."


def turned_words(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """Where the imitated state changed the order, in a sentence; plain text."""
    asked = line(step)
    changed = [(k, at, both) for k, at in enumerate(asked, 1) if (both := turned(step, at))]
    if not changed:
        return "Of these tokens, h alone would have put the same ones first."
    k, at, (best, alone) = changed[0]
    above = node_name(step, at, token_bytes, quoted)
    return (
        f"At {len(changed)} of {len(asked)} heads the imitated state changed which of these tokens is first: behind {above}, "
        f"head {k} would have put {quoted(step.nodes[alone].token, token_bytes)} first from h alone; with o it is "
        f"{quoted(step.nodes[best].token, token_bytes)}."
    )


def split_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node: its head, token and parent, the two parts of its logit, its probability and that of its path."""
    rows = [
        (
            depth,
            full_name(node.token, token_bytes),
            node_name(step, node.parent, token_bytes),
            node.scores.get(FROM_H),
            node.scores.get(FROM_O),
            node.scores[OWN],
            node.scores[JOINT],
            with_mark(node.verdict),
        )
        for node, depth in zip(step.nodes, depths(step), strict=True)
    ]
    names = ["head", "token", "below", "logit from h", "logit from o", "head's probability", "of the whole path", "verdict"]
    return pd.DataFrame(rows, columns=names)
