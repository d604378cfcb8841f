"""How many bytes of memory a run or a trace takes at most, with what the stepper draws of it, which a page keeps."""

from collections.abc import Mapping

from decoding.trace import Header, Node, Row, Step, Trace

# Bytes of what traces are made of and of what is drawn of that; rounded up, and a test weighs them.
STEP, NODE, ROW, NUMBER, LEFT_OUT, ENTRY, CHARACTER = 3_000, 600, 500, 50, 160, 200, 4
ASKED, NAMES = 400, 300  # of a prompt's token, and the two names of any


def weight(run: object, known: tuple[int, int] = (0, 0), until: int | None = None) -> int:
    """Of the steps of a run, or of all of a trace, in bytes; 0 for another job.

    Args:
        known: so many of its first steps were weighed, and what they weigh.
        until: so many steps are weighed; None: all. A run goes on meanwhile.
    """
    if isinstance(run, Trace):
        return of_trace(run)
    counted, found = known
    return found + sum(of_step(step) for step in getattr(run, "steps", ())[counted:until] if isinstance(step, Step))


def of_trace(trace: Trace) -> int:
    pieces = sum(ENTRY + NAMES + len(piece) for piece in trace.token_bytes.values())
    return STEP + of_header(trace.header) + pieces + sum(map(of_step, trace.steps))


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
