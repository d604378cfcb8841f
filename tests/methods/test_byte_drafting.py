"""Byte drafting: the tokens follow the target exactly, whatever tokens the drafter has and whichever spellings were read."""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from decoding.acceptance import byte_rejection as rule
from decoding.acceptance.byte_rejection import ByteDraft
from decoding.draft import TargetOutput, chain
from decoding.drafting import byte_chain
from decoding.drafting.byte_chain import ByteChain, ending_in, text_behind
from decoding.loop import decode
from decoding.methods import METHODS, byte_drafting
from decoding.models import byte_drafter
from decoding.models.byte_drafter import SHIPPED
from decoding.models.byte_paths import Paths, summed
from decoding.models.byte_view import END, LEAVE, TargetRows, Tries, spelled_tree, tree_of
from decoding.models.draft_tokens import OtherDraft
from decoding.models.family import Family
from decoding.models.speller import cover_of
from decoding.models.spelling import Spelling
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import BYTES_ACCEPTED, BYTES_DRAFTED, DRAFTED_BYTES, DRAFTER_TOKENS, P_OF_BYTE, Q_OF_BYTE, U_OF_BYTE
from decoding.trace import Raster
from decoding.training.recipes import byte_drafting as recipe
from tests.decoding.test_lossless_statistics import LIMIT, misfit
from tests.toys import letters, probabilities_after, tiny_target

MARK = "<|endoftext|>"


def words(*merges: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE over a and b: a mark, the letters, and what each merge makes ("a b")."""
    vocab = {MARK: 0, "a": 1, "b": 2} | {merge.replace(" ", ""): 3 + i for i, merge in enumerate(merges)}
    bpe = Tokenizer(models.BPE(vocab, [tuple(merge.split()) for merge in merges]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=MARK, eos_token=MARK)


@cache
def family() -> Family:
    """A target and a drafter that share nothing but the letters; random, so both leave much to what no tokenizer writes."""
    drafter = OtherDraft(tiny_target(2, 5), words("a a", "b a"))
    return Family("toy", words("a b", "ab b"), tiny_target(0, 5), other_draft=drafter)


# -- the rule, exactly -------------------------------------------------------------------------------------------------

PIECES = (b"", b"a", b"b", b"ab", b"abb")
GUESSES = 3  # bytes of a draft


@cache
def row(path: tuple[int, ...]) -> Tensor:
    """(vocab,) what the target has behind a path: random, and about spellings too that no tokenizer writes."""
    dice = torch.Generator().manual_seed(hash(path) % 2**31)
    return torch.rand(len(PIECES), generator=dice, dtype=torch.float64).pow(2).add(0.01)


def p(path: tuple[int, ...]) -> Tensor:
    return row(path) / row(path).sum()


def q(text: tuple[int, ...]) -> Tensor:
    """(257,) the drafter's next byte."""
    weights = torch.rand(3, generator=torch.Generator().manual_seed(hash(text) % 2**31 + 7), dtype=torch.float64) + 0.1
    found = torch.zeros(257, dtype=torch.float64)
    found[[97, 98, END]] = weights / weights.sum()
    return found


def drafts(read) -> list[tuple[float, ByteDraft]]:
    """Every draft of GUESSES bytes, with its probability; `read` says which paths the target reads for a text."""
    found = []
    for symbols in itertools.product((97, 98, END), repeat=GUESSES):
        if END in symbols:
            first = symbols.index(END)
            if any(symbol != symbols[-1] for symbol in symbols[first:]):
                continue  # one of several that begin alike
            symbols = symbols[: first + 1]
        rows = [q(symbols[:i]) for i in range(len(symbols))]
        chance = float(torch.stack([one[symbol] for one, symbol in zip(rows, symbols, strict=True)]).prod())
        tree = spelled_tree(tree_of(read(bytes(symbol for symbol in symbols if symbol != END))))
        given = {"symbols": symbols, "byte_q": torch.stack(rows), "tries": Tries.of(PIECES)}
        found.append((chance, ByteDraft(tree.tokens, tree.parents, source=("test",) * len(tree), **given)))
    return found


def law(draft: ByteDraft) -> dict[tuple[int, ...], float]:
    """The probability of every way out, over all uniforms: what the rule computes before any is thrown."""
    paths = Paths(draft.tries)
    for path in draft.places:
        paths.add(path, p(path))
    outs = [paths.ways(draft.text, at) for at in range(len(draft.text) + 1)]
    judged, scales = rule.judged(draft, paths, outs)
    found: dict[tuple[int, ...], float] = {}
    reached = 1.0
    for at, scale in enumerate(scales):
        if at < len(draft.symbols):
            ratio = float(judged[at, draft.symbols[at]] / draft.byte_q[at, draft.symbols[at]])
            here, reached = reached * max(0.0, 1 - ratio), reached * min(1.0, ratio)
        else:
            here = reached
        ways = outs[min(at, len(draft.text))]
        weights = ways.weights * scale[ways.symbols]
        if here > 1e-15:
            for i, weight in enumerate((weights / weights.sum()).tolist()):
                path, token = ways.at(i)
                found[*path, token] = found.get((*path, token), 0.0) + here * weight
    return found


def worst(read) -> float:
    """The largest error in the probability of any two first tokens, over all drafts and all uniforms."""
    law_of: dict[tuple[int, ...], float] = {}
    for chance, draft in drafts(read):
        for way, weight in law(draft).items():
            law_of[way] = law_of.get(way, 0.0) + chance * weight
    errors = []
    for first, second in itertools.product(range(len(PIECES)), repeat=2):
        found = sum(weight for way, weight in law_of.items() if way[:2] == (first, second))
        found += law_of.get((first,), 0.0) * float(p((first,))[second])  # the next step goes on from there
        errors.append(abs(found - float(p(())[first] * p((first,))[second])))
    return max(errors)


def every_spelling(text: bytes):
    """All paths that are beginnings of the text, also those that no tokenizer writes."""
    found, new = [()], [()]
    while new:
        new = [
            (*path, t) for path in new for t in range(1, len(PIECES)) if text.startswith(b"".join(PIECES[i] for i in (*path, t)))
        ]
        found += new
    return found


READ = {
    "every spelling": every_spelling,
    "one": lambda text: [tuple(text[i] - 96 for i in range(len(text)))],
    "none": lambda text: [],
    "some": lambda text: [path for path in every_spelling(text) if all(hash(path[:i]) % 3 for i in range(1, len(path) + 1))],
}


@pytest.mark.parametrize("name", READ)
def test_tokens_follow_the_target_whichever_spellings_are_read(name):
    """All drafts, all uniforms, no dice: the first two tokens have the target's probability, to rounding."""
    assert sum(chance for chance, _ in drafts(READ[name])) == pytest.approx(1)
    assert worst(READ[name]) < 1e-12


def test_a_tree_that_looks_ahead_is_noticed():
    """The planted fault: whether a spelling is read follows from bytes that are not judged yet."""
    assert worst(lambda text: every_spelling(text)[::2]) > 1e-3


def not_left(draft, paths, outs):
    """The wrong rule that draws the correction from p."""
    found, scales = RIGHT(draft, paths, outs)
    return found, [torch.ones_like(scale) for scale in scales]


def token_rows(draft, paths, outs):
    """The wrong rule that takes the row behind the tokens for the row behind the bytes: no token reaches across a place."""
    found, scales = RIGHT(draft, paths, outs)
    naive = found.clone()
    for at in range(len(found)):
        here = [one for one in paths.reached.values() if one.start == at]
        if here:
            naive[at] = torch.zeros_like(naive[at]).index_add_(0, torch.from_numpy(draft.tries.first), here[0].weights)
            naive[at] /= naive[at].sum().clamp(min=1e-12)
    return naive, scales


def known_alone(draft, paths, outs):
    """The wrong rule that leaves out what was not read."""
    found, scales = RIGHT(draft, paths, outs)
    found[:, LEAVE] = 0
    return found / found.sum(1, keepdim=True).clamp(min=1e-12), scales


RIGHT = rule.judged


@pytest.mark.parametrize("wrong", [not_left, token_rows, known_alone])
def test_wrong_rules_are_noticed(wrong, monkeypatch):
    monkeypatch.setattr(rule, "judged", wrong)
    assert worst(READ["one"]) > 1e-3


def test_the_dice_are_those_of_the_law():
    """One draft, many uniforms: what the rule writes is drawn from `law`."""
    _, draft = max(drafts(every_spelling), key=lambda one: len(one[1]))
    probs = torch.stack([p(path) for path in draft.places])
    output = TargetOutput(probs.log(), probs)
    told, ways = law(draft), {}
    rng = torch.Generator().manual_seed(0)
    for _ in range(800):
        found = rule.byte_rejection(draft, output, torch.rand(draft.uniforms + 1, generator=rng))
        way = (*(draft.tokens[node] for node in found.path), found.token)
        ways[way] = ways.get(way, 0) + 1
    places = list(told)
    assert set(ways) <= set(told)
    counts = torch.tensor([float(ways.get(way, 0)) for way in places])
    assert misfit(counts, torch.tensor([told[way] for way in places])) < LIMIT


def test_what_is_no_draft_of_bytes_is_refused_and_an_empty_one_is_plain():
    probs = p(())[None]
    with pytest.raises(ValueError, match="this draft of 2 nodes has none"):
        rule.byte_rejection(chain([1, 2], "test"), TargetOutput(probs.log(), probs), torch.rand(3))
    empty = chain([], "test")
    assert rule.byte_rejection(empty, TargetOutput(probs.log(), probs), torch.tensor([0.999999])).token == 4


def test_a_place_that_no_spelling_ends_at_is_no_end():
    """All that could be written reaches further: the byte there is accepted whatever the dice say."""
    sure = torch.zeros(2, len(PIECES), dtype=torch.float64)
    sure[:, 3] = 1  # "ab"
    tree = spelled_tree(tree_of([(3,)]))
    q = torch.zeros(3, 257, dtype=torch.float64)
    q[[0, 1, 2], [97, 98, 98]] = 1
    draft = ByteDraft(tree.tokens, tree.parents, source=("test",), symbols=(97, 98, 98), byte_q=q, tries=Tries.of(PIECES))
    found = rule.byte_rejection(draft, TargetOutput(sure.log(), sure), torch.full((4,), 0.999))
    assert found.accepted == 2 and found.path == (0,) and found.token == 3


# -- the whole loop ----------------------------------------------------------------------------------------------------

RUNS, LENGTH = 300, 2
PROMPT = (1, 3, 2, 1, 1, 4)
TEXTS = torch.tensor(list(itertools.product(range(5), repeat=LENGTH)))


def counted(sampling: Sampling, change=lambda drafter, accept: (drafter, accept)) -> Tensor:
    """(25,) how often every text of two tokens was written."""
    counts, method = torch.zeros(len(TEXTS)), METHODS["byte_drafting"]
    for seed in range(RUNS):
        drafter, accept = change(*method.build(family(), method.checked({"length": 3}), sampling))
        rng = torch.Generator().manual_seed(seed)
        options = {"sampling": sampling, "rng": rng, "max_tokens": LENGTH, "recorded": False}
        first, second = (t for step in decode(family().target, drafter, accept, PROMPT, **options) for t in step.tokens)
        counts[5 * first + second] += 1
    return counts


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7, top_p=0.9)], ids=["T=1", "T=0.7, top-p=0.9"])
def test_a_drafter_with_other_tokens_leaves_the_target_its_own(sampling):
    assert misfit(counted(sampling), probabilities_after(family().target, PROMPT, TEXTS, sampling)) < LIMIT


def test_the_same_runs_notice_a_drafter_that_lies_about_q():
    """It says every byte had been drawn from evenly spread probabilities."""

    class Lying(ByteChain):
        def propose(self, tokens, rng):
            draft = super().propose(tokens, rng)
            return replace(draft, byte_q=torch.full_like(draft.byte_q, 1 / 3)) if len(draft) else draft

    def change(drafter, accept):
        drafter.__class__ = Lying
        return drafter, accept

    assert misfit(counted(Sampling(1.0), change), probabilities_after(family().target, PROMPT, TEXTS, Sampling(1.0))) > LIMIT + 1


# -- the drafter -------------------------------------------------------------------------------------------------------


def test_bytes_are_drawn_from_the_exact_byte_view(monkeypatch):
    """Against brute force: with all rows read, the drafter's q is the law of the next byte of everything it would write."""
    monkeypatch.setattr(byte_chain, "SPARE", 0.0)
    whole = family()
    drafter = ByteChain(whole.target, whole.tokenizer, whole.other_draft, 3, Sampling(1.0))
    symbols, q = drafter._drawn((0,), b"", torch.tensor([0.3, 0.6, 0.2]))
    tries, rows = cover_of(whole.other_draft.tokenizer, 5).tries, TargetRows(whole.other_draft.model, (0,))
    cover = cover_of(whole.other_draft.tokenizer, 5)
    for at in range(len(symbols)):
        text = bytes(symbols[:at])
        paths = Paths(tries)
        spelled = tree_of(path for end in range(len(text) + 1) for path in cover.spellings(text[:end]))
        for path in spelled:
            paths.add(path, rows([path])[0])
        mass = summed(paths.ways(text, at))[:257]
        assert torch.allclose(q[at], mass / mass.sum(), atol=1e-6)


def test_what_stands_before_the_draft_is_retold():
    spelling = Spelling(family().tokenizer)
    assert text_behind((1, 3, 0, 4, 2), spelling) == b"abbb" and text_behind((0,), spelling) == b""
    assert ending_in((1, 3, 4), b"abb", spelling) == (4,) and ending_in((1, 3, 4), b"bb", spelling) is None
    assert ending_in((1,), b"", spelling) == ()


# -- who drafts --------------------------------------------------------------------------------------------------------


def test_the_shipped_drafter_has_tokens_of_its_own_and_is_small(embedded):
    other = byte_drafting.find(embedded)
    assert len(other.tokenizer) == other.model.vocab == 1024 and embedded.target.vocab == 4096
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 2_500_000
    assert METHODS["byte_drafting"].missing(embedded) == ""
    assert METHODS["byte_drafting"].parameters(embedded) == other.model.model.num_parameters() < 1_000_000


def test_a_draft_model_with_other_tokens_is_taken_first():
    assert byte_drafter.find(family()) is family().other_draft


def test_tokenizers_that_write_no_bytes_are_refused_and_so_are_pictures():
    """On either side."""
    method, plain = METHODS["byte_drafting"], letters("ab")
    assert "The tokenizer of toy does not write bytes" in method.missing(replace(family(), tokenizer=plain))
    other = OtherDraft(tiny_target(2, 5), plain)
    assert "the draft model of toy does not write bytes" in method.missing(replace(family(), other_draft=other))
    raster = Raster(1, 1, ("#000000", "#ffffff"), (("a",),))
    assert "toy draws pictures" in method.missing(replace(family(), raster=raster))


def test_training_begins_with_the_embeddings_of_the_tokens_that_both_have(embedded):
    own = byte_drafting.find(embedded).tokenizer
    model = recipe.begun(own)
    table, given = model.model.embed_tokens.weight, embedded.draft.model.model.embed_tokens.weight
    known = embedded.tokenizer.get_vocab()
    shared = {piece: token for piece, token in own.get_vocab().items() if piece in known}
    assert len(shared) > 900 and len(table) == 1024
    for piece in list(shared)[::50]:
        assert torch.equal(table[shared[piece]].data, given[known[piece]].float())


def test_a_greedy_run_across_tokenizers_is_the_plain_one_and_takes_fewer_calls(embedded):
    asked = {"prompt": "Once upon a time there was", "sampling": Sampling(0), "max_tokens": 24}
    runs = [Run(embedded, key, **asked) for key in ("plain", "byte_drafting")]
    steps = [list(run) for run in runs]
    assert runs[0].text == runs[1].text and len(steps[1]) < len(steps[0])
    step = next(step for step in steps[1] if step.facts)
    count = int(step.facts[BYTES_DRAFTED])
    assert 0 <= step.facts[BYTES_ACCEPTED] <= count and len(step.grids[DRAFTED_BYTES]) == len(step.grids[DRAFTER_TOKENS])
    for i in range(int(step.facts[BYTES_ACCEPTED])):
        q, p, u = (step.facts[name.format(i + 1)] for name in (Q_OF_BYTE, P_OF_BYTE, U_OF_BYTE))
        assert u * q < p
