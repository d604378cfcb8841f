"""Hand-built steps, traces and tables for the tests of `viz`."""

from html.parser import HTMLParser

import msgspec

from decoding.trace import Header, Node, Origin, Row, SamplingData, Step, Times, Trace, Verdict
from viz.drafter.judgements import judgements

WORDS = [b" the", b" little", b" cat", b" sat", b" on", b" a", b" mat", b" was", b".", b"\n", b" understanding", b"ing"]
TOKEN_BYTES = dict(enumerate(WORDS))
HOSTILE = {
    100: b"<script>alert(1)</script>",
    101: b"<b>bold</b>",
    102: b"javascript:alert(1)",
    103: b"\xe2\x80\xaeRTL",
    104: b"\xc3",
    105: b"\xa9",
    106: b"",
    107: b'"><a href="x">',
    108: b"$x$",
    109: b"&lt;",
    110: b"\x00\x1b\xe2\x80\x8b",
}
TIMES = Times(propose=2.0, read=5.0, accept=0.5, commit=0.25)


def node(token: int = 0, parent: int = -1, verdict: Verdict = "accepted", **more) -> Node:
    """Numbers that agree with the verdict, unless told otherwise."""
    values = {"q": 0.5, "p": 0.2, "u": 0.31 if verdict == "accepted" else 0.9, "source": "draft model", "scores": {}}
    return Node(token=token, parent=parent, verdict=verdict, **(values | more))


def row(tokens=(0, 1, 2), p=(0.6, 0.3, 0.1), q=None, residual=None, sampled=None) -> Row:
    return Row(tokens, p, q, residual or p, entropy=1.0, overlap=None, kl=None, sampled=sampled)


def step_of(nodes=(), path=(), final: Origin | None = "plain", final_token: int = 7, **more) -> Step:
    """A step whose committed tokens follow from its path."""
    tokens = tuple(nodes[i].token for i in path) + ((final_token,) if final else ())
    origins = ("accepted",) * len(path) + ((final,) if final else ())
    values = {"rows": (), "draft_calls": len(nodes), "times": TIMES, "ending": ""}
    return Step(nodes=tuple(nodes), path=tuple(path), tokens=tokens, origins=origins, **(values | more))


def chain(accepted: int = 3, length: int = 5) -> Step:
    """A chain with its first `accepted` nodes accepted."""
    verdicts = ["accepted"] * accepted + ["rejected"] * (accepted < length) + ["not judged"] * (length - accepted - 1)
    nodes = [node(i % len(WORDS), i - 1, verdict) for i, verdict in enumerate(verdicts)]
    return step_of(nodes, range(accepted), "bonus" if accepted == length else "correction")


def grown(widths: tuple[int, ...], path: tuple[int, ...] = (), rejected: tuple[int, ...] = ()) -> Step:
    """A tree with so many nodes per depth, crowded to the front as in Token Recycling."""
    parents: list[int] = []
    above = [-1]
    for width in widths:
        here = list(range(len(parents), len(parents) + width))
        shares = [width // (2 ** (i + 1)) for i in range(len(above))]  # halves, so that elder parents have more children
        shares[0] += width - sum(shares)
        parents += [parent for parent, share in zip(above, shares, strict=True) for _ in range(share)]
        above = here
    verdict = dict.fromkeys(path, "accepted") | dict.fromkeys(rejected, "rejected")
    nodes = [node(i % len(WORDS), parent, verdict.get(i, "not judged")) for i, parent in enumerate(parents)]
    return step_of(nodes, path, "correction" if rejected else "bonus")


def small_tree() -> Step:
    """3-2-2-1: the second child of the root is accepted, then its first child, then nothing."""
    parents = (-1, -1, -1, 1, 1, 3, 3, 5)
    verdicts = ("rejected", "accepted", "not judged", "accepted", "not judged", "rejected", "rejected", "not judged")
    nodes = [node(i, parent, verdict) for i, (parent, verdict) in enumerate(zip(parents, verdicts, strict=True))]
    return step_of(nodes, (1, 3), "correction")


def header(prompt_tokens: tuple[int, ...] = (0, 1)) -> Header:
    sampling = SamplingData(temperature=1.0, top_k=0, top_p=1.0)
    return Header("speculative_sampling", {}, "toy", sampling, 0, "", prompt_tokens, 64, "cpu", "float32", {})


def trace_of(*steps: Step, prompt_tokens: tuple[int, ...] = (0, 1), token_bytes=None, **head) -> Trace:
    """`head` are fields of the header."""
    return Trace(msgspec.structs.replace(header(prompt_tokens), **head), TOKEN_BYTES | (token_bytes or {}), steps)


# --- Runs side by side


def run(*steps, method="speculative_sampling", token_bytes=None, **more):
    """A trace of a method, as one column of a comparison."""
    trace = trace_of(*steps, token_bytes=token_bytes)
    return msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, method=method, **more))


GREEDY = SamplingData(temperature=0.0, top_k=0, top_p=1.0)
PLAINLY = run(*[step_of(final_token=t) for t in (0, 1, 2, 3)], method="plain")
DRAFTED = run(chain(3), chain(5))
RUNS = [("Plain", PLAINLY), ("Chain", DRAFTED)]


# --- Judged tokens


def at(tokens, p, q=None, overlap=None, kl=None, entropy=1.0):
    return Row(tokens, p, q, p, entropy=entropy, overlap=overlap, kl=kl, sampled=None)


def recorded():
    """A chain of two, the second rejected, with distributions."""
    rows = (at((0, 1), (0.7, 0.3), (0.9, 0.1), 0.8, 0.2), at((3, 1), (0.8, 0.2), (0.1, 0.9), 0.3, 1.5), None)
    nodes = [node(0), node(1, 0, "rejected", q=0.6)]
    return step_of(nodes, (0,), "correction", final_token=3, rows=rows)


def runs(*traces, domain="stories"):
    """A study over several prompts, as `judgements` takes it."""
    return [(number, 100 + number, domain, trace) for number, trace in enumerate(traces)]


FRAME = judgements(runs(trace_of(recorded(), recorded())))
TREES = judgements(runs(trace_of(chain(3), small_tree()), trace_of(chain(5))))


class Titles(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.titles = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.titles += [value for key, value in attrs if key == "title"]
