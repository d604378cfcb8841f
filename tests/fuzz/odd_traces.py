"""Traces that could be and are odd: plain data of a trace with a few of its numbers, names and parts changed for others that the
door lets in as a rule. What is drawn of them is looked at by `tests.fuzz.test_traces`."""

import math
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from decoding import score_names
from decoding.methods import METHODS
from decoding.trace import Trace
from tests.fuzz.mutations import TEXTS
from tests.hostile import PAYLOAD

Plain = dict[str, Any]
SHARES = (0, 0.0, 1.0, 1, 1.01, 0.5, 1e-320, 1e-12, 0.999999)
BITS = (0.0, -1.0, 1e6, 1e-320, 3.5)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 17.0, 1e-320, 1e308, -1e308, 2.0**53, -(2.0**63), math.nan, math.inf, -math.inf)
VALUES = (
    0, 1, -1, 10**9, 2**63 - 1, 0.0, 0.3, -2.5, 1e308, math.nan, math.inf, True, False, "", "typical", "7", "0.5", "nan", PAYLOAD,
)  # fmt: skip
PIECES = (
    b"", b" ", b"\x00", b"\n\n\n", b"\xff", b"\xc3", b"\xa9", b"<script>alert(1)</script>", b"]]>", "\u202e\u2066".encode(),
    b"a" * 1024, "\u0301\u0301".encode(), "\ud55c\uae00".encode(), b"&lt;", b"$x$", PAYLOAD.encode()[:1000],
    "\U0001f468\u200d\U0001f469".encode(),
)  # fmt: skip
NAMES = sorted(
    {text.format(3) for key, text in vars(score_names).items() if key.isupper() and isinstance(text, str)}
    | {"layers", "exit", PAYLOAD, "", "p", "q", "u", "token", "a" * 900}
)


def plain(trace: Trace) -> Plain:
    """What a trace is without its types; bytes stay bytes."""
    return msgspec.to_builtins(trace, builtin_types=(bytes,))


def odd(trace: Trace, dice: Random) -> Plain:
    """The plain data of a trace with one to six oddities."""
    data = mutable(plain(trace))
    for _ in range(dice.randint(1, 6)):
        dice.choice(ODDITIES)(data, dice)
    return data


def mutable(data: Any) -> Any:
    """The same with lists in place of tuples, and nothing shared."""
    if isinstance(data, dict):
        return {key: mutable(part) for key, part in data.items()}
    return [mutable(part) for part in data] if isinstance(data, (list, tuple)) else data


# -- one oddity each ----------------------------------------------------------------------------------------------------------


def step_in(data: Plain, dice: Random) -> Plain | None:
    return dice.choice(data["steps"]) if data["steps"] else None


def node_in(data: Plain, dice: Random) -> Plain | None:
    nodes = [node for step in data["steps"] for node in step["nodes"]]
    return dice.choice(nodes) if nodes else None


def row_in(data: Plain, dice: Random) -> Plain | None:
    rows = [row for step in data["steps"] for row in step["rows"] if row is not None]
    return dice.choice(rows) if rows else None


def shares(data: Plain, dice: Random) -> None:
    if node := node_in(data, dice):
        node[name] = dice.choice(SHARES + ((None, None) if (name := dice.choice("pqu")) != "p" else ()))


def verdicts(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        for node in step["nodes"]:
            node["verdict"] = dice.choice(("accepted", "rejected", "not judged"))


def sources(data: Plain, dice: Random) -> None:
    if node := node_in(data, dice):
        node["source"] = dice.choice((PAYLOAD, "", "retrieved", "both", "a" * 1000, "draft model", "head 99", "head x"))


def scores(data: Plain, dice: Random) -> None:
    """Of one node, or one score of all nodes of a step."""
    if not (step := step_in(data, dice)) or not step["nodes"]:
        return
    name = dice.choice(NAMES + [name for node in step["nodes"] for name in node["scores"]] * 3)
    for node in step["nodes"] if dice.random() < 0.5 else [dice.choice(step["nodes"])]:
        if dice.random() < 0.3:
            node["scores"].pop(name, None)
        else:
            node["scores"][name] = dice.choice(FLOATS)


def one_for_all(data: Plain, dice: Random, name: str = "") -> None:
    """One score, or one fact, of the whole run.

    Args:
        name: of it; one that the run has if none is given.
    """
    holders = [node["scores"] for step in data["steps"] for node in step["nodes"]] + [step["facts"] for step in data["steps"]]
    names = sorted({one for holder in holders for one in holder})
    if name or names:
        name, number = name or dice.choice(names), dice.choice(FLOATS)
        for holder in holders:
            holder |= {name: number} if name in holder else {}


def names_of(trace: Trace) -> list[str]:
    """The scores and facts of a run."""
    return sorted(
        {name for step in trace.steps for holder in (step.facts, *(node.scores for node in step.nodes)) for name in holder}
    )


def rasters(data: Plain, dice: Random) -> None:
    """Of a picture: other sides, fewer colours or more, words that ask for nothing; of a text: one all the same."""
    found = data["header"].get("raster") or {"width": 8, "height": 8, "palette": ["#ffffff", "#000000"], "asks": [["a"]]}
    sides = dice.choice((1, 2, 8, 64, 256))
    odds = ({"width": sides}, {"height": sides}, {"palette": found["palette"][:2]}, {"palette": ["#123456"] * 256}, {})
    odds += ({"asks": []}, {"asks": [[PAYLOAD]] * 8})
    data["header"]["raster"] = found | dice.choice(odds)


def no_scores(data: Plain, dice: Random) -> None:
    for node in (step_in(data, dice) or {"nodes": ()})["nodes"]:
        node["scores"] = {}


def facts(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        if step["facts"] and dice.random() < 0.5:
            step["facts"].pop(dice.choice(sorted(step["facts"])))
        step["facts"][dice.choice(NAMES + sorted(step["facts"]))] = dice.choice(FLOATS)


def grids(data: Plain, dice: Random) -> None:
    """Of one step or of all: gone, cut, longer, or of other bytes."""
    for step in data["steps"] if dice.random() < 0.5 else [step_in(data, dice) or {"grids": {}}]:
        for name, found in list(step["grids"].items()):
            wrong = dice.choice((b"", found[:-1], found * 2, bytes(len(found)), b"\xff" * len(found), dice.randbytes(len(found))))
            step["grids"][dice.choice((name, name, PAYLOAD))] = wrong


def rows(data: Plain, dice: Random) -> None:
    if row := row_in(data, dice):
        what = dice.choice(("entropy", "overlap", "kl", "sampled", "p", "q", "residual", "tokens"))
        if what in ("entropy", "kl"):
            row[what] = dice.choice(BITS)
        elif what == "overlap":
            row[what] = dice.choice((*SHARES, None))
        elif what == "sampled":
            row[what] = dice.choice((None, 0, 2**31 - 1, *row["tokens"][:1]))
        elif what == "tokens":
            row[what] = [dice.choice(row[what]) for _ in row[what]]
        else:
            row[what] = [dice.choice(SHARES) for _ in row["tokens"]]


def short_rows(data: Plain, dice: Random) -> None:
    if row := row_in(data, dice):
        count = dice.choice((0, 0, 1, 2))
        row |= {name: row[name] and row[name][:count] for name in ("tokens", "p", "q", "residual")}


def no_rows(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        step["rows"] = []


def no_q(data: Plain, dice: Random) -> None:
    for row in (step_in(data, dice) or {"rows": ()})["rows"]:
        if row is not None:
            row |= {"q": None, "overlap": None, "kl": None}


def parents(data: Plain, dice: Random) -> None:
    if (step := step_in(data, dice)) and step["nodes"]:
        place = dice.randrange(len(step["nodes"]))
        step["nodes"][place]["parent"] = dice.randint(-1, place - 1)


def many_nodes(data: Plain, dice: Random) -> None:
    """A wide tree, or a deep one."""
    if not (step := step_in(data, dice)) or not step["nodes"]:
        return
    deep = dice.random() < 0.5
    for _ in range(dice.choice((20, 120, 600))):
        at = len(step["nodes"])
        step["nodes"].append({**mutable(step["nodes"][0]), "parent": at - 1 if deep else -1, "verdict": "not judged"})
        if step["rows"]:
            step["rows"].append(mutable(step["rows"][0]))


def pruned(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        more = {"token": dice.choice((0, 5, 2**31 - 1)), "parent": dice.randint(-1, max(-1, len(step["nodes"]) - 1))}
        step["pruned"] = dice.choice(([], step["pruned"] * 3, step["pruned"] + [more | {"score": dice.choice(FLOATS)}]))


def last_token(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        step["origins"][-1] = dice.choice(("bonus", "correction", "plain", "accepted"))
        if len(step["tokens"]) > len(step["path"]):
            step["tokens"][-1] = dice.choice((0, 2**31 - 1, step["tokens"][-1]))


def no_path(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        step |= {"path": [], "tokens": step["tokens"][-1:], "origins": step["origins"][-1:]}


def times(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        step["times"] = {name: dice.choice((0.0, 1e12, 1e-320, 2.5)) for name in step["times"]}
        step["draft_calls"] = dice.choice((0, 1, 2**53))


def no_times(data: Plain, dice: Random) -> None:
    for step in data["steps"]:
        step["times"] = dict.fromkeys(step["times"], 0.0)


def endings(data: Plain, dice: Random) -> None:
    if step := step_in(data, dice):
        step["ending"] = dice.choice(("", "end of text", "token limit", "context limit of the draft model"))


def steps(data: Plain, dice: Random) -> None:
    what = dice.randrange(4)
    if what == 0:
        dice.shuffle(data["steps"])
    elif what == 1:
        data["steps"] = mutable(data["steps"] * dice.choice((2, 20)))[:250]
        data["header"]["max_tokens"] = 4096
    elif what == 2:
        data["steps"] = data["steps"][: dice.randint(0, len(data["steps"]))]
    elif data["steps"]:
        bare = {"nodes": [], "rows": [], "path": [], "tokens": [0], "origins": ["plain"], "pruned": [], "facts": {}, "grids": {}}
        data["steps"].insert(0, mutable(data["steps"][0]) | bare)


def pieces(data: Plain, dice: Random) -> None:
    """Bytes of tokens: gone, or others."""
    for token in list(data["token_bytes"]):
        if (luck := dice.random()) < 0.15:
            del data["token_bytes"][token]
        elif luck < 0.5:
            data["token_bytes"][token] = dice.choice(PIECES)


def no_pieces(data: Plain, dice: Random) -> None:
    data["token_bytes"] = {}


def method(data: Plain, dice: Random) -> None:
    """A run of one method that says it is of another."""
    data["header"]["method"] = dice.choice(list(METHODS))


def params(data: Plain, dice: Random, name: str = "") -> None:
    """One parameter, by its name or any."""
    header = data["header"]
    known = [*header["params"], "threshold", "longest", "shortest", "rule", "length", "eta", "exit", "where", "budget"]
    if dice.random() < 0.3:
        header["params"] = {}
    header["params"][name or dice.choice(known)] = dice.choice(VALUES)


def sampling(data: Plain, dice: Random) -> None:
    temperature, top_k, top_p = dice.choice((0, 0.0, 1.0, *FLOATS)), dice.choice((0, 1, 2**53)), dice.choice((1.0, *FLOATS))
    data["header"]["sampling"] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}


def header(data: Plain, dice: Random) -> None:
    name = dice.choice(("family", "device", "dtype", "prompt", "seed", "max_tokens"))
    data["header"][name] = dice.choice(TEXTS)[:900] if name not in ("seed", "max_tokens") else dice.choice((0, 1, 64, 4096, 2**53))


def prompt_tokens(data: Plain, dice: Random) -> None:
    data["header"]["prompt_tokens"] = dice.choice(([], [0], [2**31 - 1], data["header"]["prompt_tokens"] * 60))


def chat(data: Plain, dice: Random) -> None:
    roles = ("system", "user", "assistant", PAYLOAD, "")
    turns = [{"role": dice.choice(roles), "content": dice.choice(TEXTS)[:2_000]} for _ in range(dice.randint(0, 5))]
    data["header"] |= {
        "messages": turns,
        "template_options": dice.choice(({}, {"thinking": True}, {PAYLOAD: PAYLOAD}, {"messages": 1})),
    }


def ends(data: Plain, dice: Random) -> None:
    some = list(data["token_bytes"])[:3]
    data["header"] |= {"special_tokens": dice.choice((some, [], [2**31 - 1])), "stop": dice.choice((some, [2**31 - 1], [0] * 500))}
    data["header"]["ignore_end"] = dice.random() < 0.5


ODDITIES: tuple[Callable[[Plain, Random], None], ...] = (
    shares, shares, verdicts, sources, scores, scores, scores, one_for_all, one_for_all, no_scores, facts, facts, grids, rows, rows,
    short_rows, no_rows, no_q, parents, many_nodes, pruned, last_token, no_path, times, no_times, endings, steps, pieces, no_pieces,
    method, params, params, sampling, header, prompt_tokens, chat, ends,
)  # fmt: skip
