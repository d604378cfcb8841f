"""A trace as one HTML file that replays itself in any browser, offline.

Everything that needs thought (layout, sentences, labels) is done here and embedded as JSON; the script in replay.html
only shows it. Tokens are hostile until proven otherwise: they go into the page as data, `<`, `>` and `&` escaped, and
onto the screen as text nodes; the page's own policy lets no other script, style or request through.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from decoding.trace import Row, Step, Trace
from viz.runs.tally import Tally, tally
from viz.step.boxes import ROOT, boxes_of, final_index, frame_of, has_final
from viz.step.probabilities import shown
from viz.step.text import CSS, describe, strip
from viz.step.tree import tree_alt
from viz.style import LOOKS, PHASES, SERIES, SERIES_LINE
from viz.tokens import as_html, full, label, plain
from viz.words import METRICS, filled, judgement, narrate, number

TEMPLATE = Path(__file__).with_name("replay.html")
BARS = 8  # tokens shown at a position
SUMS = ("target_calls", "tokens", "drafted", "judged", "accepted", "draft_calls")
TALLY = ("tau", "alpha", "tokens per second", "wasted")


def replay_html(trace: Trace, title: str = "") -> str:
    """The file. `title` is shown on top and in the tab; plain text."""
    heading = plain(title, 120) or "Draftscope replay"
    style, script, body = parts(TEMPLATE.read_text(encoding="utf-8"))
    style = CSS.replace("<style>", "").replace("</style>", "") + style
    allowed = f"style-src '{digest(style)}'; script-src '{digest(script)}'"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{as_html(heading)}</title>",
        f"<style>{style}</style>",
    ]
    embedded = f'<script type="application/json" id="data">{as_json(data(trace, heading))}</script>'
    lines = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", f"<body>{body}", embedded]
    return "\n".join([*lines, f"<script>{script}</script>", "</body>", "</html>", ""])


def parts(template: str) -> list[str]:
    """Style, script and body of the template."""
    pieces = []
    for tag in ("style", "script", "body"):
        pieces.append(template.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0])
    return pieces


def digest(text: str) -> str:
    """What a Content-Security-Policy calls this inline text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def as_json(value: object) -> str:
    """JSON that no token can break out of: no tag, no comment, no line separator, no number that JSON does not have."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class Strings:
    """Each string once; everything else holds its place in the list."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def data(trace: Trace, heading: str) -> dict:
    """Everything the script shows. Short keys and lists in place of objects: it is repeated for every node."""
    strings = Strings()
    used = sorted({t for step in trace.steps for t in step.occurring()} | set(trace.header.prompt_tokens))
    places = {token: i for i, token in enumerate(used)}
    last = trace.header.prompt_tokens[-1:]
    steps = []
    for i, step in enumerate(trace.steps):
        steps.append(step_data(step, i, last[0] if last else None, trace, strings, places))
        last = step.tokens[-1:] or last
    return {
        "title": heading,
        "facts": facts(trace),
        "labels": [
            [label(trace.token_bytes[t], 14), full(trace.token_bytes[t])] if t in trace.token_bytes else [f"#{t}"] * 2 for t in used
        ],
        "ids": used,
        "strip": [[s["text"], s["origin"], s["step"], describe(s), s["group"], s["whole"], s["special"]] for s in strip(trace)],
        "looks": {state: [look.color, look.line, look.mark, look.dash, look.ink, look.filled] for state, look in LOOKS.items()},
        "meanings": {state: look.meaning for state, look in LOOKS.items()},
        "series": {key: [SERIES[key], SERIES_LINE[key]] for key in SERIES},
        "metrics": {key: METRICS[key].meaning for key in TALLY},
        "bars": BARS,
        "steps": steps,
        "tally": [tally_data(total) for total in running(trace.steps)],
        "strings": list(strings.places),
    }


def facts(trace: Trace) -> str:
    """The header in a line; plain text."""
    head = trace.header
    params = ", ".join(f"{plain(key)} {plain(str(value))}" for key, value in head.params.items())
    method = plain(head.method).replace("_", " ") + (f" ({params})" if params else "")
    chosen = head.sampling
    sampling = "greedy" if not chosen.temperature else f"temperature {chosen.temperature:g}"
    sampling += f", top-k {chosen.top_k}" * bool(chosen.top_k) + f", top-p {chosen.top_p:g}" * (chosen.top_p < 1)
    where = f"{plain(head.device)}, {plain(head.dtype)}"
    return " · ".join([method, plain(head.family), sampling, f"seed {head.seed}", where])


def step_data(step: Step, i: int, root: int | None, trace: Trace, strings: Strings, places: Mapping[int, int]) -> dict:
    """One step: its sentence, nodes, boxes with their places, and the distributions."""
    boxes = boxes_of(step, root)
    frame = frame_of(boxes, step, extent=(2, 1))
    nodes = [
        [places[node.token], node.parent, node.verdict, worded(node.p), worded(node.q), worded(node.u)]
        + [strings(judgement(node, trace.token_bytes, step)), strings(source(node.source, node.scores))]
        for node in step.nodes
    ]
    drawn = [
        [box.index, frame.column[k], round(frame.row[k], 2), box.parent, box.state, box.hidden]
        + [-1 if box.token is None else places.get(box.token, -1)]
        for k, box in enumerate(boxes)
    ]
    ms = ", ".join(f"{phase} {getattr(step.times, phase):.2f}" for phase in PHASES)
    return {
        "say": narrate(step, i + 1, trace.token_bytes),
        "alt": tree_alt(step, trace.token_bytes),
        "ms": f"{step.times.total:.1f} ms ({ms})",
        "nodes": nodes,
        "boxes": drawn,
        "rows": [None if row is None else row_data(row, step, r, places) for r, row in enumerate(step.rows)],
        "end": step.end_row,
        "final": final_index(step),
        "open": opening(step),
    }


def opening(step: Step) -> int:
    """The box that is looked at first: a rejection teaches most, then the token the target added."""
    rejected = [i for i, node in enumerate(step.nodes) if node.verdict == "rejected"]
    if rejected:
        return rejected[0]
    if has_final(step):
        return final_index(step)
    return step.path[-1] if step.path else ROOT


def worded(value: float | None) -> str | None:
    return None if value is None else number(value)


def source(name: str, scores: Mapping[str, float]) -> str:
    """Where a node came from, and the method's own numbers."""
    return ", ".join([f"from {plain(name)}", *(f"{plain(key)} {number(value)}" for key, value in scores.items())])


def row_data(row: Row, step: Step, r: int, places: Mapping[int, int]) -> list:
    """[tokens, p, q or 0, rest or 0, the drawn token or -1, words]: the likeliest, and everything drafted there."""
    children = {node.token for node in step.nodes if node.parent == r - 1}
    kept = set(shown(row, row.sampled, BARS)) | {k for k, token in enumerate(row.tokens) if token in children}
    order = sorted(kept)[: 2 * BARS]
    spread = [f"entropy of p {number(row.entropy, 2)} bits"]
    if row.overlap is not None:
        spread.append(f"total variation {number(1 - row.overlap, 2)}")
    if row.kl is not None:
        spread.append(f"KL(p || q) {number(row.kl, 2)} bits")
    return [
        [places[row.tokens[k]] for k in order],
        columns(row.p, order),
        columns(row.q, order) if row.q is not None else 0,
        columns(row.residual, order) if row.residual != row.p else 0,
        places.get(row.sampled, -1) if row.sampled is not None else -1,
        ", ".join(spread),
    ]


def columns(values: Sequence[float], order: Sequence[int]) -> list[float | None]:
    """Four digits are enough for a bar; JSON knows no infinity."""
    return [float(f"{values[k]:.4g}") if math.isfinite(values[k]) else None for k in order]


def running(steps: Sequence[Step]) -> Iterator[Tally]:
    """The tally after each step, without what goes by depth: a thousand steps must not cost a million."""
    total = tally(())
    for step in steps:
        one = tally([step])
        sums = {key: getattr(total, key) + getattr(one, key) for key in SUMS}
        ms = {phase: total.ms[phase] + one.ms[phase] for phase in PHASES}
        total = Tally(**sums, alpha_by_depth=(), ms=ms)
        yield total


def tally_data(total: Tally) -> list[list[str]]:
    """[name, value, formula with the numbers] of the run so far."""
    cells = [["tokens", str(total.tokens), "Committed so far, the target's own included."]]
    cells.append(["target calls", str(total.target_calls), "One per step."])
    for key, value in zip(TALLY, (total.tau, total.alpha, total.tokens_per_second, total.wasted), strict=True):
        text = "–" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"
        cells.append([key, text, filled(key, total)])
    return cells
