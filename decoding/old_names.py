"""What stood in traces of schema 1, and in the heads of that time, under other names: all that is old and still read.

Works on plain decoded data (dicts, lists), before it is checked; what has its new name already is left as it is.
"""

from collections.abc import Callable
from typing import Any

OLD_SCHEMA = 1
LONGEST = 4096  # list of a trace whose parts are renamed, that of the steps; a longer one is refused by whoever checks it
TRACE = {"pieces": "token_bytes"}
ROW = {"rest": "residual", "drawn": "sampled"}
VERDICTS = {"unread": "not judged"}
SOURCES = {"drawn tree": "sampled tree"}
SCORES = {"probe probability": "prompt token probability", "probes": "prompt tokens"}  # PPD
FACTS = {"root probes": "root prompt tokens"}  # PPD
PARAMS = {"ppd": {"probes": "prompt_tokens"}}  # method -> parameter -> parameter
VALUES = {"eagle": {"tree": {"drawn": "sampled"}}, "jacobi": {"guess": {"drawn": "sampled"}}}  # method -> parameter -> its value

HEADS = {"taps": "aux_hidden_layers", "probes": "prompt_tokens"}  # settings of a trained head (EAGLE, PPD)


def renamed(data: Any, names: dict[str, str]) -> Any:
    """A dict with its keys renamed; anything else as it is, to be refused by whoever checks it.

    >>> renamed({"rest": 1, "p": 2}, ROW)
    {'residual': 1, 'p': 2}
    """
    return {names.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data


def params(method: str, given: Any) -> Any:
    """Parameters of a method, or those that a link names.

    >>> params("eagle", {"tree": "drawn", "nodes": 24})
    {'tree': 'sampled', 'nodes': 24}
    """
    if not isinstance(given, dict):
        return given
    values = VALUES.get(method, {})
    found = renamed(given, PARAMS.get(method, {}))
    return {name: said(value, values.get(name, {})) for name, value in found.items()}


def header(data: Any) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get("method"), str):
        return data
    return within(data, "params", lambda given: params(data["method"], given))


def step(data: Any) -> Any:
    data = within(data, "rows", lambda rows: each(rows, lambda row: renamed(row, ROW)))
    data = within(data, "nodes", lambda nodes: each(nodes, node))
    return within(data, "facts", lambda facts: renamed(facts, FACTS))


def node(data: Any) -> Any:
    data = within(data, "scores", lambda scores: renamed(scores, SCORES))
    data = within(data, "verdict", lambda verdict: said(verdict, VERDICTS))
    return within(data, "source", lambda source: said(source, SOURCES))


def trace(data: Any) -> Any:
    data = within(renamed(data, TRACE), "header", header)
    return within(data, "steps", lambda steps: each(steps, step))


def within(data: Any, key: str, change: Callable[[Any], Any]) -> Any:
    """A dict with the value of `key` changed, if it has one."""
    return data | {key: change(data[key])} if isinstance(data, dict) and key in data else data


def each(data: Any, change: Callable[[Any], Any]) -> Any:
    return [change(one) for one in data] if isinstance(data, list) and len(data) <= LONGEST else data


def said(value: Any, words: dict[str, str]) -> Any:
    return words.get(value, value) if isinstance(value, str) else value
