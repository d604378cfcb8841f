"""What every method promises, whatever it does: its file, its words, its parameters, and steps that hang together."""

import dataclasses
import inspect
from importlib import import_module
from pkgutil import iter_modules

import msgspec
import pytest
import torch

import decoding.methods
from decoding.draft import Draft, chain
from decoding.loop import decode
from decoding.method import Drafter, Observed
from decoding.methods import GROUPS, METHODS
from decoding.models.family import Family
from decoding.models.requirements import DraftModel
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Node, Row, Step, Trace, decode_trace, encode
from decoding.verify import EXACT_FOR, match
from tests.decoding.test_score_names import is_known

KEYS = list(METHODS)
PROMPT = "Once upon a time there was a little girl. Once upon a time"
TOKENS = 10  # of a run
SUM = 1e-4


def default_params(key: str) -> dict:
    return dataclasses.asdict(METHODS[key].params())


def fields(key: str) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(METHODS[key].params)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_every_file_is_a_method_under_its_own_name():
    names = [module.name for module in iter_modules(decoding.methods.__path__)]
    assert sorted(METHODS) == sorted(names)
    assert "plain" in METHODS


@pytest.mark.parametrize("key", KEYS)
def test_words(key):
    method, module = METHODS[key], import_module(f"decoding.methods.{key}")
    assert method.key == key and method is module.METHOD
    assert method.title[0].isupper() and len(method.title) <= 40
    assert method.paper.startswith("https://")
    assert method.authors and 2015 <= method.year <= 2030
    assert method.group in GROUPS and method.line.endswith(".") and len(method.line) <= 100
    assert method.idea.endswith(".") and method.lossless.endswith(".")
    assert method.algorithm and all(line.endswith(".") for line in method.algorithm)
    assert inspect.getdoc(module) and module.__doc__.splitlines()[0].endswith(".")
    assert key == "plain" or any(address in module.__doc__ for address in ("arxiv.org", "github.com", "aclanthology"))


def test_titles_differ():
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


# -- the parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_params_are_frozen_and_say_what_they_are(key):
    params = METHODS[key].params
    assert dataclasses.is_dataclass(params) and params.__dataclass_params__.frozen
    for field in fields(key):
        rules, kind = field.metadata, type(field.default)
        assert rules["label"] and rules["help"].endswith("."), field.name
        assert kind in (int, float, bool, str)
        if kind in (int, float) and not rules["choices"]:
            assert rules["low"] <= field.default <= rules["high"], field.name
        if kind is str:
            assert field.default in rules["choices"], field.name


@pytest.mark.parametrize("key", KEYS)
def test_defaults_are_valid_and_anything_else_is_refused(key):
    method = METHODS[key]
    assert method.checked(default_params(key)) == method.checked({}) == method.params()
    with pytest.raises(ValueError, match="no parameter 'nonsense'"):
        method.checked({"nonsense": 1})
    for field in fields(key):
        for value in unfit(field):
            with pytest.raises(ValueError, match=field.metadata["label"]):
                method.checked({field.name: value})


def unfit(field: dataclasses.Field) -> list:
    """Values outside the range of a parameter, and of other kinds."""
    rules, kind = field.metadata, type(field.default)
    if rules["choices"]:
        return ["no such choice", None]
    if kind is bool:
        return [1, "yes", None]
    if kind is str:
        return ["x" * (rules["longest"] + 1), "\ud800", 1, None]
    return [rules["low"] - 1, rules["high"] + 1, float("nan"), str(field.default), True, None]


REFUSED = {
    ("eagle", "layers"): "there is none (earlier|later) than that",
    ("jacobi", "fill", "above"): "a text has no rows",
    ("speculative_jacobi", "fill", "above"): "a text has no rows",
    ("speculative_jacobi", "fill", "sample above"): "a text has no rows",
}  # by a target of two layers, whatever is not usual; and by texts, what pictures have


@pytest.mark.parametrize("key", KEYS)
def test_both_ends_of_every_range_run(key, llama):
    """In turn greedily and at T = 1."""
    for i, field in enumerate(fields(key)):
        rules = field.metadata
        ends = (False, True) if type(field.default) is bool else (rules["low"], rules["high"])
        for j, value in enumerate(rules["choices"] or ends):
            if value != field.default and (words := REFUSED.get((key, field.name)) or REFUSED.get((key, field.name, value))):
                with pytest.raises(ValueError, match=words):
                    Run(llama, key, {field.name: value}, "the cat")
                continue
            run = Run(llama, key, {field.name: value}, "the cat and the cat", Sampling((i + j) % 2), max_tokens=6)
            assert sum(len(step.tokens) for step in run) <= 6 and run.steps[-1].ending


# -- the steps ---------------------------------------------------------------------------------------------------------

SAMPLINGS = {"T=0": Sampling(0), "T=1": Sampling(1.0), "T=0.7, top-k, top-p": Sampling(0.7, top_k=50, top_p=0.9)}


@pytest.fixture(scope="module")
def trace_of(embedded):
    made = {}

    def trace(key: str, name: str) -> Trace:
        if (key, name) not in made:
            run = Run(embedded, key, prompt=PROMPT, sampling=SAMPLINGS[name], max_tokens=TOKENS)
            list(run)
            made[key, name] = run.trace
        return made[key, name]

    return trace


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("key", KEYS)
def test_a_trace_hangs_together(key, name, trace_of, embedded):
    trace = trace_of(key, name)
    assert trace.header.method == key and trace.header.params == default_params(key)
    assert trace.header.prompt_tokens == tuple(embedded.tokenizer(PROMPT)["input_ids"])
    tokens = [token for step in trace.steps for token in step.tokens]
    assert len(tokens) == TOKENS or trace.steps[-1].ending == "end of text"
    assert [bool(step.ending) for step in trace.steps] == [False] * (len(trace.steps) - 1) + [True]
    assert trace.text_bytes().decode("utf-8", "replace") == embedded.tokenizer.decode(tokens)
    for step in trace.steps:
        check_step(step, greedy=name == "T=0")
        check_token_bytes(step, trace)


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("key", KEYS)
def test_a_trace_survives_the_file(key, name, trace_of):
    trace = trace_of(key, name)
    assert decode_trace(encode(trace)) == trace


@pytest.mark.parametrize("key", KEYS)
def test_every_number_has_a_name_that_a_picture_can_read(key, trace_of):
    steps = trace_of(key, "T=1").steps
    names = {name for step in steps for node in step.nodes for name in node.scores} | {
        name for step in steps for name in step.facts
    }
    assert not [name for name in names if not is_known(name)]


@pytest.mark.parametrize("key", KEYS)
def test_the_rule_is_exact_for_the_drafts(key, embedded):
    """`check` inside the rule would refuse; here every draft is looked at, also of rules that take all of them."""
    method, sampling = METHODS[key], Sampling(1.0)
    drafter, accept = method.build(embedded, method.params(), sampling)
    if method.is_lossless:
        assert accept in EXACT_FOR
    assert isinstance(drafter, Drafter)


@pytest.mark.parametrize("key", [key for key, method in METHODS.items() if method.requires(DraftModel)])
def test_what_a_family_lacks_is_said(key, embedded):
    bare = Family("bare", embedded.tokenizer, embedded.target)
    sentence = METHODS[key].missing(bare)
    assert METHODS[key].title in sentence and "bare" in sentence and sentence.endswith(".")
    assert METHODS[key].missing(embedded) == ""


# -- what holds in every step ------------------------------------------------------------------------------------------


def check_step(step: Step, *, greedy: bool) -> None:
    nodes = step.nodes
    assert len(step.rows) == len(nodes) + 1
    assert len(step.tokens) == len(step.origins) >= 1
    check_path(step)
    for i, node in enumerate(nodes):
        assert -1 <= node.parent < i and node.source
        assert -1e-6 <= node.p <= 1 + 1e-6
        assert (node.q is None) == (node.u is None)
        if node.q is not None:
            assert 0 < node.q <= 1 + 1e-6 and 0 <= node.u < 1
            judged = node.verdict != "not judged"
            passed = node.u * node.q < node.p or bool(node.scores.get("judge only"))
            assert not judged or (node.verdict == "accepted") == passed
    assert step.draft_calls >= 0 and step.times.total >= 0
    end = max((i + 1 for i, node in enumerate(nodes) if node.verdict == "accepted"), default=0)
    for r, row in enumerate(step.rows):
        children = [node for node in nodes if node.parent == r - 1]
        assert (row is None) == (not children and r != end)
        if row is not None:
            check_row(row, children, greedy=greedy)


def check_path(step: Step) -> None:
    """The accepted nodes are the path, cut where the text ended; the tokens are those of the path and one more."""
    nodes, parent = step.nodes, -1
    accepted = tuple(i for i, node in enumerate(nodes) if node.verdict == "accepted")
    assert step.path == accepted, "what lies behind the end was not accepted"
    for i in accepted:
        assert nodes[i].parent == parent
        parent = i
    for i, node in enumerate(nodes):
        above = node.parent < 0 or nodes[node.parent].verdict == "accepted"
        winners = [turns(n, j)[1] for j, n in enumerate(nodes) if n.parent == node.parent and n.verdict == "accepted"]
        behind_the_end = len(step.tokens) == len(step.path) and node.parent == step.path[-1]
        reached = above and not behind_the_end and all(turns(node, i)[0] <= winner for winner in winners)
        assert (node.verdict == "not judged") == (not reached), (i, node)
    tokens = [nodes[i].token for i in step.path]
    assert list(step.tokens[: len(tokens)]) == tokens
    assert step.origins[: len(tokens)] == ("accepted",) * len(tokens)
    if len(step.tokens) > len(tokens):
        children = any(node.parent == step.end_row - 1 for node in nodes)
        assert step.origins[len(tokens) :] == ("plain" if not nodes else "correction" if children else "bonus",)
    else:
        assert step.ending


def turns(node: Node, place: int) -> tuple[int, int]:
    """When the node was first tried among its siblings and when its verdict fell; sequences that share a node try it in turn."""
    uniforms = {int(key.rsplit(" ", 1)[1]): u for key, u in node.scores.items() if key.startswith("u of sequence ")}
    return (min(uniforms), next(s for s, u in uniforms.items() if u == node.u)) if uniforms else (place, place)


def check_row(row: Row, children: list, *, greedy: bool) -> None:
    columns = [part for part in (row.tokens, row.p, row.residual, row.q) if part is not None]
    assert len({len(part) for part in columns}) == 1 and len(set(row.tokens)) == len(row.tokens) >= 1
    assert list(row.p) == sorted(row.p, reverse=True)
    for part in columns[1:]:
        assert all(-1e-6 <= value <= 1 + 1e-6 for value in part) and sum(part) <= 1 + SUM
    assert row.entropy >= -1e-6
    if row.q is None:
        assert row.overlap is None and row.kl is None
    else:
        assert -SUM <= row.overlap <= 1 + SUM and row.kl >= -SUM
    if children and not greedy:
        eldest = children[0]
        place = dict(zip(row.tokens, row.p, strict=True))
        # the first child is judged with p itself, divided by rho where there is one; a token of no probability is not listed
        assert eldest.p * eldest.scores.get("rho", 1.0) == pytest.approx(place.get(eldest.token, 0.0), abs=1e-5)
    if not children:
        assert row.residual == pytest.approx(row.p, abs=1e-5) or greedy


def check_token_bytes(step: Step, trace: Trace) -> None:
    named = [*step.tokens, *(node.token for node in (*step.nodes, *step.pruned))]
    named += [token for row in step.rows if row for token in row.tokens]
    assert set(named) == set(step.occurring())
    assert all(isinstance(trace.token_bytes[token], bytes) for token in named)


def test_these_checks_notice_a_broken_step(trace_of):
    """One change at a time, each of which must be noticed."""
    step = next(step for step in trace_of("speculative_sampling", "T=1").steps if len(step.nodes) > 1)
    check_step(step, greedy=False)
    other = "rejected" if step.nodes[0].verdict == "accepted" else "accepted"
    changed = msgspec.structs.replace
    broken = [
        changed(step, nodes=(changed(step.nodes[0], verdict=other), *step.nodes[1:])),
        changed(step, rows=step.rows[:-1]),
        changed(step, tokens=(*step.tokens, 1)),
        changed(step, path=(*step.path, 0)),
        changed(step, nodes=(changed(step.nodes[0], p=0.5 * step.nodes[0].p + 0.2), *step.nodes[1:])),
    ]
    for wrong in broken:
        with pytest.raises((AssertionError, IndexError)):
            check_step(wrong, greedy=False)


def test_a_draft_refuses_to_be_inconsistent():
    q = torch.full((1, 3), 1 / 3)
    for options, words in (
        ({"tokens": (1, 2), "parents": (-1,), "source": ("a", "b")}, "do not fit together"),
        ({"tokens": (1, 2), "parents": (1, -1), "source": ("a", "b")}, "before their children"),
        ({"tokens": (1,), "parents": (-1,), "source": ("a",), "how": "sampled"}, "must carry q"),
        ({"tokens": (1,), "parents": (-1,), "source": ("a",), "q": q}, "must not carry q"),
        ({"tokens": (1, 2), "parents": (-1, 0), "source": ("a", "b"), "q": q, "how": "sampled"}, "1 rows of q"),
    ):
        with pytest.raises(ValueError, match=words):
            Draft(**options)


def test_what_is_observed_stands_in_the_step_and_not_in_the_draft(llama):
    """What a drafter returns is merged into the step; what the draft holds cannot be written to."""

    class Telling(Drafter):
        def propose(self, tokens, rng):
            self.draft = dataclasses.replace(chain([1, 2], "test"), scores={"a": torch.tensor([1.0, 2.0])}, facts={"b": 3.0})
            return self.draft

        def observe(self, draft, output, verification):
            return Observed({"c": torch.tensor([torch.nan, 4.0])}, {"d": 5.0}) if len(verification.path) < 2 else None

    drafter = Telling()
    options = {"sampling": Sampling(0), "rng": torch.Generator().manual_seed(0), "max_tokens": 1}
    (step,) = decode(llama.target, drafter, match, [7, 70], **options)
    assert [node.scores for node in step.nodes] == [{"a": 1.0}, {"a": 2.0, "c": 4.0}] and step.facts == {"b": 3.0, "d": 5.0}
    assert type(step.facts) is dict and decode_step(step) == step
    assert set(drafter.draft.scores) == {"a"} and set(drafter.draft.facts) == {"b"}
    for kept in (drafter.draft.scores, drafter.draft.facts):
        with pytest.raises(TypeError, match="does not support item assignment"):
            kept["e"] = 6.0


def decode_step(step: Step) -> Step:
    """Through the file format and back."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(step), type=Step)
