"""Train the network that makes one input embedding of the pieces of a merged word (lens `dynamic_tokenization`).

    python -m decoding.training dynamic_tokenization --family embedded --data DIR

The target stays as it is and teaches: its states behind every token of a text are computed once and kept
(`decoding.training.states`). Then windows are merged, each up to a merge of its own, half of them up to the very last,
and the target reads them through the network, with either reading of the positions. Learned from are all rows from the first merged
word on, that of a word against the unmerged one behind its last piece: first that the states behind a third of the layers are what
they were, for which the layers above need not be read; then KL(p || p_m). Resumable: run the same command again.

Minixhofer et al. 2024, https://arxiv.org/abs/2405.07883, sample a tokenizer a step and learn the next token with the loss of a
language model; here the merges are those that the lens makes (`decoding.models.word_merges`), and what the target says of the
unmerged text is far more than a token. Their start, copying the old embeddings, and their loss that keeps words near those that
both vocabularies have are not needed: untrained the network is the mean of the pieces, and what is not merged keeps its embedding.
Prints KL on held-out windows by the share of the merges, of the network and of the mean.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from decoding.lenses.dynamic_tokenization import POSITIONS, lacks, positions
from decoding.looks.dynamic_tokenization import MEAN, NETWORK, groups
from decoding.models import layers
from decoding.models.family import Family, load
from decoding.models.heads import SHIPPED_FOR, command, fingerprint, folder_for, save
from decoding.models.hypernetwork import KEY, Hypernetwork, read_in_place
from decoding.models.target import Target
from decoding.models.word_merges import fused_at
from decoding.training import forecast
from decoding.training.card import note_head
from decoding.training.corpus import domains
from decoding.training.fit import adamw, fit
from decoding.training.precision import quick
from decoding.training.states import Batch, Pool, Texts, prepared

SHARES = (0.5, 1.0)  # of the merges, at which it is measured
ROWS, REPORT_EVERY = 4, 200  # windows measured at once, and how often
DECAY = 0.01
WORD = 0.25  # weight of the row of a word: no text ends there


@dataclass(frozen=True)
class Merged:
    """A window with some of its merges."""

    groups: list[tuple[int, int]]
    positions: list[int]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    started = time.monotonic()
    family = load(options.family, options.family if options.family in SHIPPED_FOR else None, options.device)
    target = family.target
    if why := lacks(family):
        raise SystemExit(why)
    prepared(target)
    learned, test = pools(family, options)
    network, merges = begun(target, options), Merges(family)
    many = Drawer(merges, learned, options.rows)
    steps = max(1, round(options.seen / (options.rows * learned.length)))
    fit(
        network,
        lambda step: loss(network, target, merges, learned.rows(many.of(step), step), step >= options.near * steps),
        steps=steps,
        lr=options.lr,
        checkpoint=learned.folder / f"{marked(options)}-{steps}.pt",
        title=KEY,
        report=lambda step: json.dumps(measured(network, target, merges, test, shares=(1.0,), most=2 * ROWS)),
        report_every=REPORT_EVERY,
        optimized=lambda model, lr: adamw(model, lr, DECAY),
    )
    network.load_state_dict({name: values.half().float() for name, values in network.state_dict().items()})  # as it is kept
    figures = {"shares": list(SHARES), **measured(network, target, merges, test)}
    seen = steps * options.rows * learned.length
    settings = network.settings | {"tokens": seen, "distinct tokens": learned.windows * learned.length}
    folder = folder_for(KEY, options.family, target.model)
    save(folder, KEY, target.model, network.state_dict(), settings, figures, torch.float16)
    if options.family == "embedded":
        what = words(network, seen, time.monotonic() - started)
        note_head(folder.parent.parent / "README.md", KEY, what, said(figures), line(options))
    print(json.dumps(figures, indent=1), folder, sep="\n")


def words(network: Hypernetwork, seen: int, seconds: float) -> str:
    """For the model card."""
    count = sum(values.numel() for values in network.parameters())
    return (
        f"Dynamic tokenization: a transformer of {len(network.blocks)} blocks that makes one input embedding of a word's pieces, "
        f"{count:,} numbers; {seen:,} tokens seen, {seconds / 60:.0f} min"
    )


def said(figures: dict[str, list[float]]) -> str:
    """KL with all merges, in a line."""
    values = {name: all_of[-1] for name, all_of in figures.items() if name != "shares"}
    return "KL in nats, all merges: " + "; ".join(f"{name} {value:.3f}" for name, value in values.items())


def marked(options: argparse.Namespace) -> str:
    """What kind of network it is and how it is trained: others must not go on from its checkpoint."""
    return f"{options.blocks}x{options.inner}-{options.lr:g}-{options.rows}-{options.near:g}"


def line(options: argparse.Namespace) -> str:
    """The command that makes it again; folders of this machine are not named."""
    names = ("tokens", "held_out", "seen", "near", "window", "rows", "blocks", "inner", "lr")
    given = " ".join(f"--{name.replace('_', '-')} {getattr(options, name):g}" for name in names)
    return f"{command(KEY, options.family)}{' --data DIR' if options.data else ''} {given}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", default="embedded", help="target: embedded, a folder or a Hub id")
    parser.add_argument("--data", type=Path, help="corpus folder (see decoding.training.corpus); Python source alone without it")
    parser.add_argument("--tokens", type=float, default=4e5, help="of text that the target reads to learn from")
    parser.add_argument("--held-out", type=float, default=16e3, help="of text to measure on")
    parser.add_argument("--seen", type=float, default=2e6, help="tokens of all windows that are learned from")
    parser.add_argument("--near", type=float, default=0.6, help="share of the steps that learn from the states of the lower layers")
    parser.add_argument("--window", type=int, default=256, help="tokens of a window")
    parser.add_argument("--rows", type=int, default=4, help="windows of a step")
    parser.add_argument("--blocks", type=int, default=2, help="of the network")
    parser.add_argument("--inner", type=int, default=512, help="width between the two layers of a block")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for what is not finished yet")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


def pools(family: Family, options: argparse.Namespace) -> tuple[Pool, Pool]:
    """Windows with the states that the target's head reads, to learn from and to measure on."""
    work, target = options.work / KEY / fingerprint(family.target.model).mark, family.target
    learned, test = (
        Pool(work / name, target, round(tokens / options.window), options.window, (near(target), target.last_hidden))
        for name, tokens in (("learned", options.tokens), ("held-out", options.held_out))
    )
    print(forecast.reading(target, [learned, test]), flush=True)
    learned.fill(family, Texts.of(domains(options.data), held_out=False), ("given",))
    test.fill(family, Texts.of(domains(options.data), held_out=True), ("given",))
    return learned, test


def near(target: Target) -> int:
    """The layer whose states are learned from first: behind a third of all."""
    return max(1, target.last_hidden // 3)


def begun(target: Target, options: argparse.Namespace) -> Hypernetwork:
    """An untrained one for a target; it says the mean of the pieces."""
    table = layers.embedding(target.model).weight
    size = round(table.float().square().mean().sqrt().item(), 6)
    return Hypernetwork(table.shape[1], options.blocks, 4, options.inner, size).to(target.device)


# -- merged windows ----------------------------------------------------------------------------------------------------


class Merges:
    """What may be merged in a window; found once per window, as a window is seen often."""

    def __init__(self, family: Family) -> None:
        self.family, self._known = family, {}

    def of(self, tokens: Tensor) -> tuple[int, ...]:
        """As `fused_at` of (n,) tokens."""
        ids = tuple(tokens.tolist())
        if ids not in self._known:
            pieces = self.family.token_bytes(ids)
            self._known[ids] = fused_at(ids, [pieces[token] for token in ids])
        return self._known[ids]


class Drawer:
    """Which windows a step learns from: the more can be merged in one, the more often it comes up."""

    def __init__(self, merges: Merges, pool: Pool, rows: int) -> None:
        counts = np.array([max(merges.of(torch.from_numpy(row)), default=0) for row in pool.tokens], dtype=np.float64)
        self._rows, self._chances = rows, counts / counts.sum()

    def of(self, step: int) -> np.ndarray:
        """(rows,) numbers of windows, always the same ones for a step."""
        return np.random.default_rng((3, step)).choice(len(self._chances), size=self._rows, p=self._chances)


def drawn(fused: Sequence[int], rng: np.random.Generator) -> Merged:
    """A window with the merges up to a random one, all of them half of the time, and one of both readings of the positions."""
    last = max(fused, default=0)
    merges = last if rng.random() < 0.5 else int(rng.integers(0, last + 1))
    spans = groups(fused, merges)
    return Merged(spans, positions(spans, POSITIONS[int(rng.integers(len(POSITIONS)))]))


def loss(network: nn.Module, target: Target, merges: Merges, batch: Batch, whole: bool) -> Tensor:
    """Over the rows of merged windows, from the first merged word on: the mean KL(p || p_m) in nats, to which what is said at
    the words themselves counts less; or, unless `whole`, the mean square of what the states behind the near layer are off, over the
    square of what they should be."""
    rng = np.random.default_rng((7, batch.seed))
    windows = [drawn(merges.of(row), rng) for row in batch.tokens]
    rows = [(b, i) for b, window in enumerate(windows) for i in range(first_word(window), len(window.groups))]
    if not rows:  # nothing can be merged in any of them
        return torch.stack([values.sum() for values in network.parameters()]).sum() * 0
    with quick(batch.tokens.device):
        if not whole:
            return distances(network, target, batch, windows, rows).mean()
        weight = torch.where(at_words(windows, rows), WORD, 1.0).to(batch.tokens.device)
        return (weight * divergences(network, target, batch, windows, rows)).sum() / weight.sum()


def at_words(windows: Sequence[Merged], rows: Sequence[tuple[int, int]]) -> Tensor:
    """(rows,) bool: which of (window, group) are groups of several tokens."""
    return torch.tensor([windows[b].groups[i][1] - windows[b].groups[i][0] > 1 for b, i in rows])


def first_word(window: Merged) -> int:
    """The first group of several tokens; the number of groups if there is none."""
    return next((i for i, (start, end) in enumerate(window.groups) if end - start > 1), len(window.groups))


def divergences(
    network: nn.Module | None, target: Target, batch: Batch, windows: Sequence[Merged], rows: Sequence[tuple[int, int]]
) -> Tensor:
    """(rows,) KL(p || p_m) in nats.

    Args:
        network: what makes one embedding of several; None: their mean.
        windows: how each window of the batch is read.
        rows: (window, group) that are wanted.
    """
    hidden = layers.normed(target.model, read_merged(network, target, batch.tokens, windows, target.last_hidden))
    before, merged = at(batch.states[target.last_hidden], hidden, windows, rows)
    p, q = (target.score(states).float().log_softmax(-1) for states in (before, merged))
    return (p.exp() * (p - q)).sum(-1)


def distances(
    network: nn.Module | None, target: Target, batch: Batch, windows: Sequence[Merged], rows: Sequence[tuple[int, int]]
) -> Tensor:
    """(rows,) |h - h_m|^2 / |h|^2 of the states behind the near layer; arguments as for `divergences`."""
    hidden = read_merged(network, target, batch.tokens, windows, near(target))
    before, merged = at(batch.states[near(target)], hidden, windows, rows)
    return (merged.float() - before).square().sum(-1) / before.square().sum(-1)


def at(before: Tensor, merged: Tensor, windows: Sequence[Merged], rows: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """(rows, width) states behind the last token of each group, of the unmerged and of the merged windows."""
    b, i = (torch.tensor(part, device=merged.device) for part in zip(*rows, strict=True))
    ends = torch.tensor([windows[w].groups[g][1] - 1 for w, g in rows], device=merged.device)
    return before[b, ends], merged[b, i]


def read_merged(network: nn.Module | None, target: Target, tokens: Tensor, windows: Sequence[Merged], depth: int) -> Tensor:
    """(windows, most groups, width) states behind the layer `depth`; rows behind a window's last group mean nothing."""
    count, length = tokens.shape
    with torch.no_grad():
        embedded = layers.embedding(target.model)(tokens.flatten()).float()
    spans = [(b * length + start, b * length + end) for b, window in enumerate(windows) for start, end in window.groups]
    sizes = [len(window.groups) for window in windows]
    padded = nn.utils.rnn.pad_sequence(list(read_in_place(embedded, spans, network).split(sizes)), batch_first=True)
    most = padded.shape[1]
    places = torch.tensor([[*w.positions, *[0] * (most - len(w.positions))] for w in windows], device=tokens.device)
    mask = layers.causal(most, 0, padded)
    return layers.through(target.model, padded.to(target.dtype), range(depth), places, mask)


# -- figures -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measured(
    network: nn.Module, target: Target, merges: Merges, pool: Pool, shares: Sequence[float] = SHARES, most: int | None = None
) -> dict[str, list[float]]:
    """ "network, renumbered" and so on -> mean KL(p || p_m) in nats on held-out windows for every share of the merges; the
    same with ", at words" for the rows of the merged words themselves.

    Every other row behind a merged word is one behind a prompt that ends there.
    """
    found: dict[str, list[float]] = {}
    for (way, made_by), how in product(((NETWORK, network), (MEAN, None)), POSITIONS):
        values = [behind(made_by, target, merges, pool, share, how, most or pool.windows) for share in shares]
        found[f"{way}, {how}"], found[f"{way}, {how}, at words"] = (
            [round(v, 4) for v in part] for part in zip(*values, strict=True)
        )
    return found


def behind(
    network: nn.Module | None, target: Target, merges: Merges, pool: Pool, share: float, how: str, most: int
) -> tuple[float, float]:
    """Mean KL in nats behind the first merged word of so many windows: at unmerged tokens, and at merged words."""
    found: dict[bool, list[Tensor]] = {False: [], True: []}
    for batch in islice(pool.parts(ROWS), -(-most // ROWS)):
        windows = [merged(merges.of(row), share, how) for row in batch.tokens]
        rows = [(b, i) for b, window in enumerate(windows) for i in range(first_word(window), len(window.groups))]
        if rows:
            values, words = divergences(network, target, batch, windows, rows), at_words(windows, rows).to(batch.tokens.device)
            for kind, part in found.items():
                part.append(values[words == kind])
    plain, at_them = (torch.cat(part).mean().item() if part else 0.0 for part in found.values())
    return plain, at_them


def merged(fused: Sequence[int], share: float, how: str) -> Merged:
    """A window with a share of its merges."""
    spans = groups(fused, round(share * max(fused, default=0)))
    return Merged(spans, positions(spans, how))
