"""A trace as one HTML file that replays itself in any browser, offline: the stepper of the app, with all of the run inside.

Everything that needs thought (sentences, labels) is done in `viz/stepper/data.py` and embedded as JSON; its script only shows it.
Tokens are hostile until proven otherwise: they go into the page as data, `<`, `>` and `&` escaped, and onto the screen as text
nodes; the page's own policy lets no other script, style or request through.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from decoding.trace import Step, Trace
from viz.runs.tally import Tally, tally
from viz.stepper import assets
from viz.stepper.data import PARTS, WRITE, stepper_data
from viz.style import PHASES
from viz.tokens import as_html, plain
from viz.words import METRICS, filled

TEMPLATE = Path(__file__).with_name("replay.html")
SUMS = ("target_calls", "tokens", "drafted", "judged", "accepted", "draft_calls")
TALLY = ("tau", "alpha", "tokens per second", "wasted")


def replay_html(trace: Trace, title: str = "") -> str:
    """The file. `title` is shown on top and in the tab; plain text."""
    heading = plain(title, 120) or "Draftscope replay"
    style, script, body = parts(TEMPLATE.read_text(encoding="utf-8"))
    style, script = assets.style() + style, f"{assets.script()}\n{script}"
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
    return "\n".join([*lines, f'<script type="module">{script}</script>', "</body>", "</html>", ""])


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


def data(trace: Trace, heading: str) -> dict:
    """Everything the script shows: what the stepper is fed, and the tally after each step."""
    stands = [0 if trace.steps else -1, WRITE, None]
    options = {
        "run": "replay", "key": "replay", "mode": "full", "large": False, "alone": True, "lights": [], "keys": True,
        "show": dict.fromkeys(PARTS, True), "order": 1, "at": stands, "more": False, "busy": False, "again": False, "number": 1,
        "empty": "" if trace.steps else "This run has no steps: there is nothing to replay.",
    }  # fmt: skip
    return {
        "title": heading,
        "stepper": stepper_data(trace, every_row=True) | options,
        "metrics": {key: METRICS[key].meaning for key in TALLY},
        "tally": [tally_data(total) for total in running(trace.steps)],
    }


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
