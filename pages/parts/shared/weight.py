"""How much memory a run or a trace takes, in positions: of every step the root and each drafted token, `POSITION` bytes at most."""

from collections.abc import Mapping
from math import ceil

from decoding.limits import POSITION
from decoding.trace import Header, Node, Row, Step, Trace

# Bytes of what traces are made of, with what the stepper draws of them, which a page keeps; rounded up, and a test weighs them.
STEP, NODE, ROW, NUMBER, LEFT_OUT, ENTRY, CHARACTER = 3_000, 600, 500, 50, 160, 200, 4
ASKED, NAMES = 400, 300  # of a prompt's token, and the two names of any


def positions(run: object, known: tuple[int, int] = (0, 0), until: int | None = None) -> int:
    """Of all steps of a run, or of a trace, the root and the drafted tokens, and grids by their size; 0 for another job.

    A trace may come from a file that is made of something else: it has at least so many as its bytes would be.

    Args:
        known: so many of its first steps were counted, and how much they are.
        until: so many steps are counted; None: all. A run goes on meanwhile.
    """
    counted, found = known
    new = [step for step in getattr(run, "steps", ())[counted:until] if isinstance(step, Step)]
    found += sum(1 + len(step.nodes) + ceil(sum(map(len, step.grids.values())) / POSITION) for step in new)
    return max(found, ceil(bytes_of(run) / POSITION)) if isinstance(run, Trace) else found


def bytes_of(trace: Trace) -> int:
    """What all the parts of a trace take at most."""
    pieces = sum(ENTRY + NAMES + len(piece) for piece in trace.token_bytes.values())
    return of_header(trace.header) + pieces + sum(map(of_step, trace.steps))


def of_header(header: Header) -> int:
    tokens = len(header.special_tokens) + len(header.stop)
    said = [header.prompt, *(turn.content for turn in header.messages)]
    said += [word for words in (header.raster.asks if header.raster else ()) for word in words]
    named = sum(map(of_named, (header.params, header.template_options, header.versions)))
    return STEP + ASKED * len(header.prompt_tokens) + NUMBER * tokens + sum(ENTRY + CHARACTER * len(text) for text in said) + named


def of_step(step: Step) -> int:
    rows = sum(of_row(row) for row in step.rows if row is not None)
    small = NUMBER * (len(step.path) + len(step.tokens) + len(step.origins)) + LEFT_OUT * len(step.pruned)
    return STEP + sum(map(of_node, step.nodes)) + rows + small + of_named(step.facts) + of_named(step.grids)


def of_node(node: Node) -> int:
    return NODE + CHARACTER * len(node.source) + of_named(node.scores)


def of_row(row: Row) -> int:
    return ROW + NUMBER * (len(row.tokens) + len(row.p) + len(row.q or ()) + len(row.residual))


def of_named(values: Mapping[str, object]) -> int:
    texts = sum(map(len, values)) + sum(len(value) for value in values.values() if isinstance(value, str))
    return ENTRY * len(values) + CHARACTER * texts + sum(len(value) for value in values.values() if isinstance(value, bytes))
