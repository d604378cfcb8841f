"""Train the head of SpecDec++: which drafted tokens will the target accept?

    python -m decoding.training specdec_pp --family embedded --data DIR

Huang, Guo, Wang 2024, https://arxiv.org/abs/2405.19715, section 4 and their code. The target continues prompts; behind every prefix
X_<i of its text the draft model draws one token Y_i, whose label is its chance of acceptance, min(1, p / q). The head then reads
the draft model over a mixture Z of both texts, Z_i = X_i with probability 0.15, and learns the labels where Z_i = Y_i; refusals
count six times. The mixture is there because at run time the head sees several drafted tokens in a row.

With a file of conversations (`decoding.training.conversations`) nothing is written anew: X is what stands in windows of those whose
answers the model gave itself, greedy and drawn ones mixed, and only what the assistant says is learned.

Two heads: for sampling (temperature 1) and for greedy runs, whose text and labels are greedy. A third one without the weight is
trained for comparison and not kept. Resumable: run the same command again.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from decoding.methods.specdec_pp import KEY, Head
from decoding.models.family import Family, load
from decoding.models.heads import command, fingerprint, folder_for, save
from decoding.models.target import Target
from decoding.models.writing import continued
from decoding.training.card import note_head
from decoding.training.chat_texts import Conversations
from decoding.training.corpus import documents
from decoding.training.figures import auc, calibration_error, unweighted
from decoding.training.fit import fit

PROMPT, LENGTH = 32, 128  # tokens given, and written by the target behind them
ROWS = 32  # texts at once
MIXED = 0.15  # share of target tokens in the mixture
WEIGHT = 6.0  # of a refusal
HELD_OUT = 6  # batches
MIXES = 3  # mixtures of every text, as in the three epochs of the paper
BATCH = 1024  # tokens of a step
KINDS = ("sampled", "greedy")  # of text, each with a head of its own


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    family = load(options.family, options.draft, options.device)
    if family.draft is None:
        raise SystemExit(f"The family {family.name} has no draft model; name one with --draft.")
    work = options.work / KEY / f"{fingerprint(family.target.model).mark}-{fingerprint(family.draft.model).mark}"
    learn, test = sources(family, options.data)
    lessons = {kind: write(family, learn, work / kind, kind, batches(options.tokens, kind)) for kind in KINDS}
    tests = {kind: write(family, test, work / f"{kind}-held-out", kind, HELD_OUT, seed=10**6) for kind in KINDS}

    pools = {kind: Pool.of(family.draft, found, kind) for kind, found in lessons.items()}
    steps = math.ceil(options.epochs / MIXES * len(pools["sampled"].accepted) / BATCH)
    width = family.draft.model.config.hidden_size
    heads = nn.ModuleDict({kind: Head(width, options.blocks) for kind in (*KINDS, "unweighted")}).to(family.draft.device)
    fit(
        heads,
        lambda step: losses(heads, pools, step),
        steps=steps,
        lr=options.lr,
        checkpoint=work / f"head-{options.blocks}-{options.lr:g}-{steps}.pt",
        title="head",
        report_every=50,
        report=lambda step: json.dumps(held_out(heads, family.draft, tests)),
    )
    figures = held_out(heads.eval(), family.draft, tests)
    folder = folder_for(KEY, options.family if options.draft in (None, options.family) else "", family.draft.model)
    settings = {
        "width": width,
        "blocks": options.blocks,
        "refusals weigh": WEIGHT,
        "share of target tokens": MIXED,
        "target": fingerprint(family.target.model).mark,
        "tokens": sum(int(lesson.valid.sum()) for lesson in lessons.values()),
    }
    kept = {name: values for name, values in heads.state_dict().items() if not name.startswith("unweighted.")}
    save(folder, KEY, family.draft.model, kept, settings, figures)
    if options.family == "embedded":
        line = f"{command(KEY, family.name)} --data DIR"
        note_head(
            folder.parent.parent / "README.md",
            KEY,
            f"SpecDec++: {options.blocks} residual blocks and a 2-way layer, twice",
            words(figures),
            line,
        )
    print(f"{folder}\n{words(figures)}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="embedded", help="target: embedded, smollm2, a folder or a Hub id")
    parser.add_argument("--draft", help="draft model; what ships brings its own")
    parser.add_argument("--data", type=Path, help="folder with text to take prompts from, or a file of conversations; else Python")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for what is not finished yet")
    parser.add_argument("--tokens", type=float, default=220e3, help="tokens that the target writes, a third of them greedily")
    parser.add_argument("--blocks", type=int, default=3, help="residual blocks of the head")
    parser.add_argument("--epochs", type=float, default=3.0, help="how often every token of the target is seen; more overfit")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


def batches(tokens: float, kind: str) -> int:
    share = 2 / 3 if kind == "sampled" else 1 / 3
    return max(1, round(tokens * share / (ROWS * LENGTH)))


# -- lessons -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lesson:
    """Texts of the target, and behind every prefix one token of the draft model."""

    text: np.ndarray  # (n, PROMPT + LENGTH) the prompt and X
    drafted: np.ndarray  # (n, LENGTH) Y
    accepted: np.ndarray  # (n, LENGTH) the chance that Y is accepted
    valid: np.ndarray  # (n, LENGTH) bool: the text has not ended before


def sources(family: Family, data: Path | None) -> tuple["Source", "Source"]:
    """Where X comes from, to learn from and held out."""
    if data is not None and data.is_file():
        return Spoken(Conversations.of(family, data, held_out=False, own=True)), Spoken(
            Conversations.of(family, data, held_out=True, own=True)
        )
    learn, test = documents(data)
    return Continued(learn), Continued(test)


def write(family: Family, source: "Source", folder: Path, kind: str, count: int, seed: int = 0) -> Lesson:
    """`count` batches of ROWS texts, or as many as there are; those that lie in `folder` already are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    count = min(count, source.most)
    for number in tqdm(range(count), desc=f"target writes, {folder.name}", mininterval=5):
        file = folder / f"{number:05}.npz"
        if not file.exists():
            made = lesson(family, *source.batch(family, kind, seed, number), kind)
            fresh = folder / "fresh.npz"
            np.savez(fresh, **made)
            fresh.replace(file)
        with np.load(file, allow_pickle=False) as found:
            parts.append({name: found[name] for name in Lesson.__dataclass_fields__})
    return Lesson(**{name: np.concatenate([part[name] for part in parts]) for name in Lesson.__dataclass_fields__})


class Source(Protocol):
    """Texts of the target."""

    most: int  # batches that there are

    def batch(self, family: Family, kind: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(ROWS, PROMPT + LENGTH) tokens; (ROWS, LENGTH) bool: which may be learned."""
        ...


@dataclass(frozen=True)
class Continued:
    """What the target writes behind the beginnings of texts."""

    texts: Sequence[str]
    most: int = 10**6

    def batch(self, family: Family, kind: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        start = prompts(family, self.texts, seed + number)
        return continued(family.target, start, LENGTH, greedy=kind == "greedy", seed=seed + number)


@dataclass(frozen=True)
class Spoken:
    """What the target has said in conversations."""

    found: Conversations

    @property
    def most(self) -> int:
        return max(1, len(self.found.packed(PROMPT + LENGTH)[0]) // ROWS)

    def batch(self, family: Family, kind: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        text, counts = self.found.windows(family, kind, number, PROMPT + LENGTH)
        return text, counts[:, PROMPT:]


def prompts(family: Family, texts: Sequence[str], seed: int) -> np.ndarray:
    """(ROWS, PROMPT) tokens: half from the beginning of a text, half from somewhere in it."""
    rng = np.random.default_rng(seed)
    rows = []
    while len(rows) < ROWS:
        text = texts[rng.integers(len(texts))]
        start = 0 if rng.random() < 0.5 else int(rng.integers(max(1, len(text) - 20 * PROMPT)))
        tokens = family.tokenizer(text[start : start + 20 * PROMPT])["input_ids"][:PROMPT]
        if len(tokens) == PROMPT:
            rows.append(tokens)
    return np.array(rows)


@torch.inference_mode()
def lesson(family: Family, written: np.ndarray, valid: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """The labels of the draft model's tokens behind every prefix of a text of the target, as a Source gives it."""
    text = torch.from_numpy(written).to(family.target.device)
    drafted, accepted = labels(family.target, family.draft, text, kind)
    arrays = {"text": text.int(), "drafted": drafted.int(), "accepted": accepted.half()}
    return {name: values.cpu().numpy() for name, values in arrays.items()} | {"valid": valid}


def labels(target: Target, draft: Target, text: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """(n, LENGTH) a token of the draft model behind every prefix of X, and its chance of acceptance."""
    drafted, accepted = [], []
    for row in text.split(8):
        p, q = (m.model(row[:, :-1], use_cache=False).logits[:, PROMPT - 1 :, : m.vocab].float() for m in (target, draft))
        if kind == "greedy":
            drafted.append(q.argmax(-1))
            accepted.append((drafted[-1] == p.argmax(-1)).float())
        else:
            q = q.softmax(-1)
            drafted.append(torch.multinomial(q.flatten(0, 1), 1).view(q.shape[:2]))
            at = drafted[-1][..., None]
            accepted.append(chance(p.softmax(-1).gather(-1, at), q.gather(-1, at))[..., 0])
    return torch.cat(drafted), torch.cat(accepted)


def chance(p: Tensor, q: Tensor) -> Tensor:
    """min(1, p / q): the chance that a token drawn from q is accepted.

    >>> chance(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])).tolist()
    [1.0, 0.6000000238418579, 0.6666666865348816]
    """
    return (p / q).clamp(max=1)


# -- the head ----------------------------------------------------------------------------------------------------------


def mixture(lesson: Lesson, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(rows, PROMPT + LENGTH) prompt and Z; (rows, LENGTH) bool: where Z is the draft model's and the label counts."""
    own = rng.random((len(rows), LENGTH)) >= MIXED
    text = lesson.text[rows].astype(np.int64)
    mixed = np.where(own, lesson.drafted[rows], text[:, PROMPT:])
    return np.concatenate((text[:, :PROMPT], mixed), 1), own & lesson.valid[rows]


@torch.no_grad()
def read(draft: Target, tokens: np.ndarray) -> Tensor:
    """(rows, LENGTH, width) states at the tokens behind the prompt: each has seen the token it judges."""
    ids = torch.from_numpy(tokens).to(draft.device)
    out = draft.model(ids, use_cache=False, output_hidden_states=True)
    return out.hidden_states[-1][:, PROMPT:].float()


def weighted(logits: Tensor, accepted: Tensor, counts: Tensor, weight: float) -> Tensor:
    """Cross-entropy with soft labels in which a refusal counts `weight` times, over the weights' sum.

    Args:
        logits: (..., 2) rejected, accepted.
        accepted: (...) labels P.
        counts: (...) bool, positions that count.
    """
    log = logits.log_softmax(-1)
    refused = weight * (1 - accepted)
    loss = -(accepted * log[..., 1] + refused * log[..., 0])
    return loss[counts].sum() / (accepted + refused)[counts].sum()


@dataclass(frozen=True)
class Pool:
    """Tokens with their labels: every text in MIXES mixtures."""

    hidden: Tensor  # (n, width) float16
    accepted: Tensor  # (n,)

    @classmethod
    def of(cls, draft: Target, found: Lesson, title: str) -> "Pool":
        hidden, accepted = [], []
        rng = np.random.default_rng(0)
        parts = [rows for _ in range(MIXES) for rows in np.array_split(np.arange(len(found.text)), max(1, len(found.text) // ROWS))]
        for rows in tqdm(parts, desc=f"draft model reads, {title}", mininterval=5):
            tokens, own = mixture(found, rows, rng)
            hidden.append(read(draft, tokens)[torch.from_numpy(own)].half())
            accepted.append(torch.from_numpy(found.accepted[rows].astype(np.float32)[own]).to(draft.device))
        return cls(torch.cat(hidden), torch.cat(accepted))

    def batch(self, seed: int) -> tuple[Tensor, Tensor]:
        """(BATCH, width) states and (BATCH,) labels."""
        rows = torch.from_numpy(np.random.default_rng(seed).integers(len(self.accepted), size=BATCH))
        return self.hidden[rows].float(), self.accepted[rows]


def losses(heads: nn.ModuleDict, pools: dict[str, Pool], step: int) -> Tensor:
    """The sum over all heads: they share no parameter. Everything random follows from the step."""
    found = []
    for kind, pool in pools.items():
        hidden, accepted = pool.batch(step)
        counts = torch.ones_like(accepted, dtype=torch.bool)
        found.append(weighted(heads[kind](hidden), accepted, counts, WEIGHT))
        if kind == "sampled":
            found.append(weighted(heads["unweighted"](hidden), accepted, counts, 1.0))
    return torch.stack(found).sum()


@torch.no_grad()
def held_out(heads: nn.ModuleDict, draft: Target, tests: dict[str, Lesson]) -> dict[str, float]:
    """Figures on held-out prompts: ROC-AUC, calibration as predicted and with the weight taken out, and the KL of the label."""
    found: dict[str, float] = {}
    for kind, test in tests.items():
        rng = np.random.default_rng(0)
        predicted: dict[str, list[np.ndarray]] = {name: [] for name in ((kind, "unweighted") if kind == "sampled" else (kind,))}
        labels = []
        for rows in np.split(np.arange(len(test.text)), len(test.text) // ROWS):
            tokens, own = mixture(test, rows, rng)
            hidden = read(draft, tokens)
            for name, parts in predicted.items():
                parts.append(heads[name].accepted(hidden.flatten(0, 1)).view(own.shape).cpu().numpy()[own])
            labels.append(test.accepted[rows].astype(np.float64)[own])
        yes = np.concatenate(labels)
        found[f"{kind} mean acceptance"] = float(yes.mean())
        for name, parts in predicted.items():
            scores = np.concatenate(parts).astype(np.float64)
            found[f"{name} AUC"] = auc(scores, yes)
            found[f"{name} calibration error"] = calibration_error(scores, yes)
            if name != "unweighted":
                found[f"{name} calibration error, weight taken out"] = calibration_error(unweighted(scores, WEIGHT), yes)
    return {name: round(value, 4) for name, value in found.items()}


def words(figures: dict[str, float]) -> str:
    """The figures in a line."""
    return "; ".join(f"{name} {value:.3f}" for name, value in figures.items())


if __name__ == "__main__":
    main()
