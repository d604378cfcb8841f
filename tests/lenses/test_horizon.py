"""The horizon lens: units and their horizons, what is read out of states against the model itself, the cap, what ships."""

import json

import msgspec
import numpy as np
import pytest
import torch

from decoding.lenses import horizon as lens
from decoding.looks.horizon import At, HorizonLook
from decoding.models import horizons
from decoding.models.heads import Fingerprint, fingerprint
from decoding.models.horizons import ANSWER, SENTENCE, SHIPPED, probe_of, sentence_lengths, tokens_left
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Node, Step, Times, Trace

READERS = ("position", "state", "state and position", "head")


@pytest.fixture(scope="module")
def trace(embedded) -> Trace:
    """A greedy story with an end."""
    prompt = "Once upon a time there was a little girl. She"
    run = Run(embedded, "speculative_sampling", prompt=prompt, sampling=Sampling(0), seed=0, max_tokens=220)
    list(run)
    assert run.trace.steps[-1].ending == "end of text"
    return run.trace


@pytest.fixture(scope="module")
def seen(embedded, trace) -> dict[str, HorizonLook]:
    """Unit -> the last look at the first step."""
    return {unit: list(LensRun(embedded, "horizon", trace, 0, None, {"unit": unit}))[-1] for unit in (SENTENCE, ANSWER)}


# -- units -------------------------------------------------------------------------------------------------------------


def test_sentences_end_at_their_marks_and_at_blank_lines_and_not_inside_numbers():
    assert sentence_lengths([b"It is 3", b".", b"5 m", b".", b" Go", b"!", b'"', b" He"]) == ([4, 3], 1)
    assert sentence_lengths([b"A title", b"\n\n", b"One line", b"\n", b"and another"]) == ([2], 3)
    assert sentence_lengths([b"Two. In. One", b" piece."]) == ([1, 1], 0), "a token ends a sentence once"
    assert sentence_lengths([b"so he said", b".", b"\xe2\x80", b"\x9d", b" He"]) == ([4], 1), "half of a quotation mark"
    assert sentence_lengths([]) == ([], 0)


def test_the_tokens_left_follow_from_the_share_exactly():
    for length in (1, 5, 60):
        for t in range(1, length + 1):
            assert tokens_left(t, horizons.horizon(t, length)) == pytest.approx(length - t)
    assert tokens_left(4, 1.0) == horizons.MOST_LEFT


def test_truth_is_known_up_to_the_end_and_unknown_behind_the_last_mark(embedded, seen, trace):
    answer = [(row.t, row.left) for row in seen[ANSWER].text]
    count = sum(len(step.tokens) for step in trace.steps) - 1  # without the end token
    assert answer == [(i + 1, count - 1 - i) for i in range(count)]
    cut = msgspec.structs.replace(trace, steps=trace.steps[:6])  # a run that was stopped by a limit
    *_, sentence = LensRun(embedded, "horizon", cut)
    *_, answer = LensRun(embedded, "horizon", cut, params={"unit": ANSWER})
    assert all(row.left is None for row in answer.text) and answer.notes
    written = [row.left for row in sentence.text]
    assert None in written and all(left is None for left in written[written.index(None) :])
    assert sentence.text[0].t == 2, "the sentence began in the prompt: She"


# -- reading -----------------------------------------------------------------------------------------------------------


def test_what_is_read_is_what_the_models_own_states_say(embedded, seen, trace):
    """Against the library's forward pass, without our cache, blocks and masks."""
    tokens = trace.tokens_before(len(trace.steps))[:-1]
    first = len(trace.header.prompt_tokens)
    with torch.inference_mode():
        out = embedded.target.model(torch.tensor([tokens]), output_hidden_states=True)
    for unit, look in seen.items():
        probe = probe_of("embedded", embedded.target, unit)
        ending = horizons.ending_tokens(embedded, unit)
        assert [row.token for row in look.text] == list(tokens[first:])
        for i, row in enumerate(look.text):
            state, last = (out.hidden_states[layer][0, first + i].double().numpy() for layer in (probe.layer, -1))
            wanted = (probe.by_position(row.t), probe.by_state(state), probe.by_both(state, row.t), probe.by_head(last))
            assert (row.position, row.state, row.both, row.head) == pytest.approx(wanted, abs=2e-3)
            end = out.logits[0, first + i, : embedded.target.vocab].softmax(-1)[ending].sum()
            assert row.end == pytest.approx(float(end), abs=1e-3)


def test_the_end_of_a_sentence_is_any_token_with_a_mark(embedded):
    pieces = embedded.token_bytes(horizons.ending_tokens(embedded, SENTENCE).tolist())
    assert (
        b"." in pieces.values()
        and b"?" in pieces.values()
        and all(any(m in p for m in (b".", b"!", b"?")) for p in pieces.values())
    )
    assert set(horizons.ending_tokens(embedded, ANSWER).tolist()) == embedded.target.ends
    assert horizons.ending_tokens(embedded, SENTENCE) is horizons.ending_tokens(embedded, SENTENCE)  # all visitors waited for it


# -- the cap -----------------------------------------------------------------------------------------------------------


def step(parents: tuple[int, ...], path: tuple[int, ...]) -> Step:
    verdicts = ["accepted" if i in path else "rejected" for i in range(len(parents))]
    nodes = tuple(Node(7, parent, 0.5, 0.5, 0.1, verdict, "", {}) for parent, verdict in zip(parents, verdicts, strict=True))
    return Step(nodes, (), path, (7,) * (len(path) + 1), ("accepted",) * len(path) + ("bonus",), 1, Times(0, 0, 0, 0), "")


def at(t: int, left: int | None, share: float) -> At:
    return At(7, t, left, share, 0.0, 0.0, 0.0, 0.0)


def test_the_cap_counts_what_it_spares_and_what_it_costs():
    tree = step((-1, 0, 0, 1, 3, 4), (0, 1, 3))  # a chain of five with a sibling at depth 2; three of it kept
    rows = [at(3, 4, 0.5), at(4, 3, 0.4)]  # foretold behind the first: 3 more, of which one is written now
    for slack, cap, spared, lost in ((0, 2, 2, 1), (1, 3, 2, 0), (3, 5, 0, 0)):
        base = HorizonLook(unit=SENTENCE, by="position", slack=slack)
        found = lens.call(tree, 1, rows, base)
        assert (found.cap, found.drafted, found.deepest, found.accepted) == (cap, 6, 5, 3)
        assert (found.spared, found.lost, found.past) == (spared, lost, 2), slack
    answer = lens.call(tree, 1, rows, HorizonLook(unit=ANSWER, by="position"))
    assert (answer.cap, answer.past) == (3, 1), "the end token may be drafted, too"
    first = lens.call(tree, 0, rows, HorizonLook(unit=SENTENCE, by="position"))
    assert first.cap is None and first.spared == first.lost == 0, "nothing was read of this sentence before the call"


def test_a_cap_that_knows_the_truth_spares_what_is_behind_the_end_and_costs_nothing(trace, seen):
    """The same sums over the run, with the true share in place of a reader; one that halves it must cost something."""
    look = seen[ANSWER]
    true = [msgspec.structs.replace(row, position=row.left / (row.t + row.left)) for row in look.text]
    along = lens.Along(trace.tokens_before(len(trace.steps))[:-1], len(trace.header.prompt_tokens), (), ())
    base = msgspec.structs.replace(look, by="position", slack=0)
    exact = list(lens.calls(trace, along, true, base))
    assert sum(call.lost for call in exact) == 0
    assert sum(call.spared for call in exact) == sum(call.past for call in exact)
    short = [msgspec.structs.replace(row, position=0.0) for row in true]
    assert sum(call.lost for call in lens.calls(trace, along, short, base)) > 0
    assert sum(call.drafted for call in look.calls) == sum(len(step.nodes) for step in trace.steps)


# -- what ships --------------------------------------------------------------------------------------------------------


def test_what_ships_is_small_and_belongs_to_the_weights(embedded):
    assert SHIPPED.stat().st_size < 100_000
    known = json.loads(SHIPPED.read_text("utf-8"))
    assert known.keys() == {"embedded", "smollm2"}
    own = known["embedded"]["model"]
    assert Fingerprint(own["shapes"], tuple(own["values"])).fits(fingerprint(embedded.target.model))
    for name, width in (("embedded", 256), ("smollm2", 576)):
        for unit in known[name].keys() - {"model"}:
            probe = horizons.opened(known[name][unit])
            assert (len(probe.ridge), len(probe.both), len(probe.head)) == (width + 1, width + 2, width + 1)


def test_counting_passes_the_papers_checks_and_the_states_are_held_against_it():
    """Falling along a unit (rank correlation above .8) and an error below .15 say nothing here: that is why `beyond` is there."""
    known = json.loads(SHIPPED.read_text("utf-8"))
    for name in known:
        figures = known[name][SENTENCE]["figures"]
        assert figures["position"]["inside"] > 0.95 and figures["position"]["mae"] < 0.15 and figures["position"]["beyond"] == 0
        assert abs(figures["always .5"]["mae"] - 0.25) < 0.01
        for unit in known[name].keys() - {"model"}:
            found = known[name][unit]["figures"]
            assert all({"mae", "beyond", "next"} <= found[one].keys() for one in READERS)
            assert found["state"]["mae"] < found["always .5"]["mae"] - 0.05, "a state knows something"
            assert found["state and position"]["mae"] < found["position"]["mae"] + 0.01
            assert found["state"]["beyond"] > 0.1, "and something that counting does not"


def test_what_does_not_fit_is_refused(embedded, trace, tmp_path, monkeypatch):
    known = json.loads(SHIPPED.read_text("utf-8"))["embedded"]
    file = tmp_path / "horizon.json"

    def refused(changed: dict, words: str) -> None:
        file.write_text(json.dumps({"embedded": changed}), "utf-8")
        horizons.read_file.cache_clear()
        monkeypatch.setattr(horizons, "SHIPPED", file)
        with pytest.raises(ValueError, match=words):
            LensRun(embedded, "horizon", trace)

    refused({"model": known["model"], ANSWER: known[ANSWER]}, "how long a sentence of the family embedded .* --family embedded")
    refused(known | {"model": known["model"] | {"values": [1.0] * len(known["model"]["values"])}}, "comes from other weights")
    refused(known | {SENTENCE: known[SENTENCE] | {"ridge": [0.0] * 9}}, "another width than 256")
    refused(known | {SENTENCE: known[SENTENCE] | {"head": [float("nan")] * 257}}, "damaged: .*numbers that are none")
    refused(known | {SENTENCE: {"said": "x"}}, "is damaged: KeyError")
    horizons.read_file.cache_clear()


def test_a_run_that_wrote_nothing_is_refused(embedded, trace):
    with pytest.raises(ValueError, match="written nothing yet"):
        LensRun(embedded, "horizon", msgspec.structs.replace(trace, steps=()))


def test_a_cursor_off_the_text_stands_at_the_last_token_that_is_on_it(embedded, trace):
    refused = next((i, j) for i, s in enumerate(trace.steps) for j, n in enumerate(s.nodes) if n.verdict == "not judged")
    *_, look = LensRun(embedded, "horizon", trace, *refused)
    before = len(trace.tokens_before(refused[0])) - len(trace.header.prompt_tokens)
    assert before - 1 <= look.at < len(look.text)
    assert np.isfinite([row.state for row in look.text]).all()
