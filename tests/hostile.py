"""Markup of every kind in one text, and what of it a page would draw as markup: for all tests of what comes from outside.

Every special character of the payload follows the letters zq, so that one that reaches Markdown or HTML unescaped is found by
looking for the pair.
"""

import re
from collections.abc import Iterator

import msgspec
from streamlit.testing.v1 import AppTest

from decoding.trace import Message, Step, Trace

MARKS = (
    "**b**", "_i_", "[t](http://evil.test/a)", "![p](http://evil.test/p.png)", "$x^2$", ":red[r]", ":smile:", ":material/home:",
    "<img src=http://evil.test/q onerror=alert(1)>", '"onmouseover="x', "`c`", "# h", "| a |", "\n- l", "~~s~~", "&lt;", "\\",
)  # fmt: skip
PAYLOAD = " ".join(re.sub(r"([^\w\s])", r"zq\1", mark) for mark in MARKS)
LEAK = re.compile(r"zq[!-/:-@\[^-`{-~]")  # a special character that no backslash stands before
TAG = re.compile(r"""zq(<img|"onmouse)""")
NOT_MARKDOWN = {  # (message, field): drawn as text, or read by the component alone
    ("Code", "code_text"), ("TextInput", "default"), ("TextInput", "value"), ("TextInput", "placeholder"), ("TextArea", "default"),
    ("TextArea", "value"), ("TextArea", "placeholder"), ("Selectbox", "options"), ("Selectbox", "raw_value"),
    ("Selectbox", "placeholder"), ("MultiSelect", "options"), ("MultiSelect", "raw_values"), ("MultiSelect", "placeholder"),
    ("Html", "body"), ("PlotlyChart", "spec"), ("PlotlyChart", "config"), ("PlotlyChart", "alt"), ("BidiComponent", "json"),
    ("BidiComponent", "mixed"), ("Dataframe", "columns"), ("Dataframe", "alt"), ("Arrow", "alt"), ("DownloadButton", "url"),
}  # fmt: skip


def strings(proto) -> Iterator[tuple[str, str, str]]:
    """(message, field, text) of every string inside."""
    for field, value in proto.ListFields():
        several = value if field.is_repeated else [value]
        for one in several:
            if isinstance(one, str):
                yield proto.DESCRIPTOR.name, field.name, one
            elif hasattr(one, "ListFields"):
                yield from strings(one)


def leaks(at: AppTest) -> list[str]:
    """What of the payload would be drawn as markup on the page."""
    found = []
    for element in at._tree:
        proto = getattr(element, "proto", None)
        for message, field, text in strings(proto) if hasattr(proto, "ListFields") else ():
            if field in ("id", "key", "form_id", "element_id") or "zq" not in text:
                continue
            wrong = TAG if (message, field) == ("Html", "body") else LEAK if (message, field) not in NOT_MARKDOWN else None
            if wrong and (hit := wrong.search(text)):
                found.append(f"{message}.{field}: …{text[max(0, hit.start() - 60) : hit.end() + 20]}…")
    return found


def clean(at: AppTest) -> AppTest:
    assert not at.exception, at.exception
    assert not (found := leaks(at)), "\n".join(found)
    return at


def hostile(trace: Trace) -> Trace:
    """The trace with markup in every text."""
    replaced = msgspec.structs.replace

    def changed(step: Step) -> Step:
        nodes = (replaced(n, source=n.source + PAYLOAD, scores={**n.scores, PAYLOAD: 0.5}) for n in step.nodes)
        return replaced(step, nodes=tuple(nodes), facts={**step.facts, PAYLOAD: 1.0})

    header = replaced(
        trace.header, family=PAYLOAD, prompt=PAYLOAD, device=PAYLOAD, dtype=PAYLOAD, versions={PAYLOAD: PAYLOAD},
        messages=(Message("user", PAYLOAD),), template_options={"zq_option": PAYLOAD},
    )  # fmt: skip
    marks = (MARKS * (len(trace.token_bytes) // len(MARKS) + 1))[: len(trace.token_bytes)]
    pieces = {token: re.sub(r"([^\w\s])", r"zq\1", mark).encode() for token, mark in zip(trace.token_bytes, marks, strict=True)}
    return Trace(header, pieces, tuple(map(changed, trace.steps)))
