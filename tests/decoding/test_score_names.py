"""The names of scores stand once; their values stand in stored traces and never change."""

import ast
from pathlib import Path

import pytest

from decoding import score_names
from decoding.score_names import part_of

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("decoding", "viz", "pages")
STORED = {
    "retrieved", "draft model", "both", "joint q", "q", "rank", "tree value", "head probability", "predicted acceptance",
    "logit from h", "logit from o", "state moved by", "gate {}", "slot in block", "q of the root", "slot {}",
    "q without the vector", "tokens of the sentence", "tokens since the vector",
    "cosine with the true state", "share of {}", "prompt token probability", "prompt tokens", "state", "root prompt tokens",
    "members", "row budget", "ms with {} rows", "tokens with {} rows", "confidence", "exit layer", "layers", "stopped", "exit",
    "rows read", "layer passes", "confidence after layer {}", "order", "estimate before", "estimate after", "calls before",
    "matched", "occurrences", "weight", "count", "P", "draft value", "typical p", "typical threshold", "judge score", "judge only",
    "judge deviation", "rho", "beta", "beta at k", "R3w", "optimum", "copies", "guesses", "u of sequence {}",
    "layer passes of the call", "layer passes of the full model", "revived tokens", "aux entries", "KL to the full model",
    "overlap with the full model", "agrees with the full model", "depth reached", "attention paid", "went on behind",
    "q of byte {}", "p of byte {}", "u of byte {}", "drafted symbols", "accepted symbols", "drafted bytes", "tokens of the drafter",
}  # fmt: skip


def known() -> list[str]:
    """Every name of the module, with repeats."""
    values = [value for name, value in vars(score_names).items() if name.isupper()]
    return [value for value in values if isinstance(value, str)] + [*score_names.OF_POSITION[1:]]


def is_known(name: str) -> bool:
    return any(part_of(template, name) for template in known() if "{}" in template) or name in known()


def typed(source: str) -> list[str]:
    """Names of scores or facts that a file spells out where it reads or writes them."""

    def of_node(part: ast.AST) -> bool:
        return getattr(part, "attr", getattr(part, "id", "")) in ("scores", "facts")

    places: list[ast.AST | None] = []
    for part in ast.walk(ast.parse(source)):
        match part:
            case ast.Subscript(value=of, slice=key) if of_node(of):
                places.append(key)
            case ast.Call(func=ast.Attribute(attr="get", value=of), args=[key, *_]) if of_node(of):
                places.append(key)
            case ast.Compare(left=key, comparators=[of]) if of_node(of):
                places.append(key)
            case ast.keyword(arg="scores" | "facts", value=ast.Dict(keys=keys)):
                places += keys
            case ast.Assign(targets=[of], value=ast.Dict(keys=keys)) if of_node(of):
                places += keys
    return [place.value for place in places if isinstance(place, ast.Constant) and isinstance(place.value, str)]


def test_stored_names_stay():
    assert set(known()) == STORED and len(known()) == len(STORED)


def test_names_can_be_told_apart():
    """No name reads as one of a numbered kind that it is not."""
    for template in (name for name in known() if "{}" in name):
        assert part_of(template, template.format(3)) == "3"
        assert not [name for name in known() if name != template and (part_of(template, name) or "").isdecimal()]


@pytest.mark.parametrize("file", [f for room in ROOMS for f in (ROOT / room).rglob("*.py")], ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_spells_a_score_out(file):
    assert not typed(file.read_text())


SPELLED = (
    'node.scores["q"]',
    'scores.get("q", 0)',
    '"q" in node.scores',
    'Draft(scores={"q": 1})',
    'scores = {"q": 1}',
    'facts["q"]',
)


@pytest.mark.parametrize("source", SPELLED)
def test_the_check_notices(source):
    assert typed(source) == ["q"]
