"""Train the heads that a method grows on a target, any Llama-like one, on given text and on text that the target writes itself.

    python -m decoding.training medusa --family embedded --data DIR

The target stays as it is. Its hidden states are computed once and kept on disk (`decoding.training.states`), so that the heads see
them often at little cost; resumable: run the same command again. With `--go-on` heads that are there are trained on, in a plan of
their own. Prints, on held-out text and for every depth k, how often the best token and one of the best five is right, the expected
acceptance sum_v min(p, q), p the target's distribution at that place and q the head's, and how often the best tokens of all depths
up to k are right.
"""

import argparse
import json
import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from decoding.models.eight_bits import packed, unpacked
from decoding.models.family import Family, load
from decoding.models.heads import Settings, command, fingerprint, folder_for, head_for, save
from decoding.models.target import Target
from decoding.training import forecast
from decoding.training.card import note_head
from decoding.training.chat_texts import Conversations
from decoding.training.corpus import domains
from decoding.training.fit import fit, suited
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.recipes import RECIPES
from decoding.training.shortlist import Shortlist, frequent, shortlist
from decoding.training.states import KINDS, Batch, Pool, Texts, Windows

BEST = 10  # ranks whose accuracy is measured
ROWS = 4  # windows judged at once
REPORT_EVERY = 100


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    recipe = RECIPES[options.method]
    family = load(options.family, device=options.device)
    target = family.target
    prepared(target)
    started = time.monotonic()
    learned, test = filled(family, layers_read(recipe, family.target, options), options)
    heads = recipe.init_head(target, options)
    recipe.told(heads, family)
    before = trained_before(recipe.key, heads, target) if options.go_on else {}
    steps = max(1, math.ceil(options.epochs * int(learned.counts.sum()) / (options.rows * learned.length)))
    usual = frequent(learned.tokens, target.vocab)
    kept = learned.folder / f"{recipe.key}-{mark(recipe, heads)}-{options.lr:g}-{options.rows}-{steps}"
    kept = kept.with_name(f"{kept.name}-behind-{before['tokens']}.pt" if before else f"{kept.name}.pt")
    loss = lambda step: loss_of(recipe, heads, target, usual, learned.batch(step, options.rows), step / steps)  # noqa: E731
    print(forecast.learning(heads, target, loss, steps, kept), flush=True)
    fit(
        heads,
        loss,
        steps=steps,
        lr=options.lr,
        checkpoint=kept,
        title=recipe.key,
        report_every=REPORT_EVERY,
        report=lambda step: short(measured(recipe, heads, target, test, most=4 * ROWS)),
        optimized=suited(target.device),
    )
    minutes = before.get("minutes", 0) + (time.monotonic() - started) / 60
    if options.keep == "int8":
        heads.load_state_dict(unpacked(packed(heads.state_dict())))  # what is measured is what is kept
    depths = measured(recipe, heads.eval(), target, test)
    tokens = before.get("tokens", 0) + steps * options.rows * learned.length
    settings = recipe.settings(heads) | recipe.calibrated(depths)
    settings |= {"tokens": tokens, "distinct tokens": int(learned.counts.sum()), "minutes": round(minutes, 1)}
    folder = folder_for(recipe.key, options.family, target.model)
    save(folder, recipe.key, target.model, heads.state_dict(), settings, figures(depths), getattr(torch, options.keep))
    if options.family == "embedded":
        what = f"{recipe.words(heads)}; {tokens:,} tokens seen, {settings['distinct tokens']:,} of them distinct, {minutes:.0f} min"
        note_head(folder.parent.parent / "README.md", recipe.key, what, short(depths), line(options))
    print(json.dumps(figures(depths), indent=1), folder, sep="\n")


def prepared(target: Target) -> None:
    """Frozen, and its weights as they lie in their file: for many rows that is quicker than how they lie for drafting."""
    target.model.requires_grad_(False)
    for values in target.model.parameters():
        values.data = values.data.contiguous()


def loss_of(recipe: Recipe, heads: nn.Module, target: Target, usual: np.ndarray, batch: Batch, done: float) -> Tensor:
    """The recipe's loss, over a part of a large vocabulary (`decoding.training.shortlist`)."""
    part = shortlist(target, usual, batch.tokens, batch.seed)
    labels = part.places(batch.tokens) if isinstance(part, Shortlist) else batch.tokens
    return recipe.loss(heads, part, replace(batch, labels=labels), done)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD", help=", ".join(RECIPES))
    for key, recipe in RECIPES.items():
        part = methods.add_parser(key)
        common(part)
        part.add_argument("--go-on", action="store_true", help="begin with the heads that are there, trained before")
        part.add_argument("--keep", choices=("float16", "int8"), default="float16", help="numbers of the file")
        recipe.options(part)
    return parser.parse_args(arguments)


def common(part: argparse.ArgumentParser) -> None:
    """The options of everything that learns from a target's states."""
    part.add_argument("--family", default="embedded", help="target: embedded, smollm2, a folder or a Hub id")
    part.add_argument("--data", "--corpus", type=Path, help="folder with text, or a file of conversations; else Python")
    part.add_argument("--also", nargs="*", choices=[*RECIPES], default=[], help="compute the states of these methods, too")
    part.add_argument("--outputs", type=Path, help="tokens that the target drew before (decoding.training.outputs)")
    part.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of text, in equal parts")
    part.add_argument("--tokens", type=float, default=2e6, help="of text that the target reads to learn from")
    part.add_argument("--held-out", type=float, default=50e3, help="of text to measure on")
    part.add_argument("--window", type=int, default=256, help="tokens of a window")
    part.add_argument("--rows", type=int, default=8, help="windows of a step")
    part.add_argument("--epochs", type=float, default=4.0, help="how often a token is seen")
    part.add_argument("--lr", type=float, default=2e-3, help="learning rate")
    part.add_argument("--work", type=Path, default=Path(".training"), help="folder for what is not finished yet")
    part.add_argument("--device", default="auto")


def filled(family: Family, read: set[int], options: argparse.Namespace) -> tuple[Pool, Pool]:
    """The states behind these layers, on text to learn from and on text to measure on. What reads the same layers shares them."""
    chat = options.data is not None and options.data.is_file()
    work = options.work / "heads" / fingerprint(family.target.model).mark / ("chat" if chat else "-".join(options.kinds))
    learned, test = (
        Pool(work / name, family.target, math.ceil(tokens / options.window), options.window, read)
        for name, tokens in (("learned", options.tokens), ("held-out", options.held_out))
    )
    print(forecast.reading(family.target, [learned, test]), flush=True)
    learned.fill(family, texts(family, options, held_out=False), options.kinds)
    test.fill(family, texts(family, options, held_out=True), options.kinds)
    return learned, test


def layers_read(recipe: Recipe, target: Target, options: argparse.Namespace) -> set[int]:
    """The layers whose states the recipe reads, and those of `--also`; the last one always, from which p is computed."""
    chosen = recipe.aux_hidden_layers_with
    read = chosen(target, options) if chosen else recipe.aux_hidden_layers(target)
    return {*read, *layers_of_others(target, options)}


def layers_of_others(target: Target, options: argparse.Namespace) -> set[int]:
    """The last layer, and those of the methods in `--also`."""
    return {target.last_hidden}.union(*(RECIPES[other].aux_hidden_layers(target) for other in options.also))


def texts(family: Family, options: argparse.Namespace, held_out: bool) -> Windows:
    """Where windows come from: a file of conversations, or plain text."""
    if options.data is not None and options.data.is_file():
        return Conversations.of(family, options.data, held_out)
    written = np.load(options.outputs, mmap_mode="r", allow_pickle=False) if options.outputs else None
    return Texts.of(domains(options.data), held_out, None if held_out else written)


def trained_before(key: str, heads: nn.Module, target: Target) -> Settings:
    """Give `heads` the weights of the ones that this target has; returns what is said of their training.

    Raises:
        ValueError: there are none, or they have other shapes.
    """
    shapes = {name: tuple(values.shape) for name, values in heads.state_dict().items()}
    found = head_for(key, target.model, lambda settings: shapes)
    heads.load_state_dict(found.tensors)
    return found.settings


def mark(recipe: Recipe, heads: nn.Module) -> str:
    """What kind of heads these are in a word: others must not go on from their checkpoint."""
    said = json.dumps(recipe.settings(heads), sort_keys=True)
    return f"{sum(values.numel() for values in heads.parameters())}-{zlib.crc32(said.encode()):08x}"


def line(options: argparse.Namespace) -> str:
    """The command that makes these heads again; folders of this machine are not named."""
    said = [command(options.method, options.family)]
    said += ["--data DIR"] if options.data else []
    said += [f"--outputs {options.outputs.name}"] if options.outputs else []
    said += [f"--kinds {' '.join(options.kinds)}"] if options.kinds != list(KINDS) else []
    for name in ("tokens", "held_out", "window", "rows", "epochs", "lr"):
        said.append(f"--{name.replace('_', '-')} {getattr(options, name):g}")
    said += ["--go-on"] if options.go_on else []
    said += [f"--keep {options.keep}"] if options.keep != "float16" else []
    return " ".join([*said, *own_options(options)])


def own_options(options: argparse.Namespace) -> list[str]:
    """Those of the method's recipe that are not as usual, in the words of the command line."""
    parser = argparse.ArgumentParser()
    RECIPES[options.method].options(parser)
    usual = vars(parser.parse_args([]))
    changed = {name: value for name in usual if (value := getattr(options, name)) != usual[name] and name != "lr"}
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in changed.items()]


# -- figures -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measured(recipe: Recipe, heads: nn.Module, target: Target, pool: Pool, most: int | None = None) -> list[dict]:
    """One entry per depth: `depth`; `ranks`, how often each of the BEST best tokens is right; `overlap`, the mean of
    sum_v min(p, q); `path`, how often the best tokens of this and all shallower depths are right; over tokens that may be learned.

    Args:
        most: windows looked at; None: all.
    """
    sums: list[Tensor] = []  # per depth: BEST ranks, overlap, path, count
    for part, batch in enumerate(pool.parts(ROWS)):
        if most is not None and part * ROWS >= most:
            break
        with quick(batch.tokens.device):
            scored = target.score(batch.states[target.last_hidden])
        p = scored.float().softmax(-1)
        straight = torch.ones_like(batch.counts)
        for number, logits in enumerate(recipe.predict(heads, target, batch)):
            k = recipe.first + number
            if number == len(sums):
                sums.append(torch.zeros(BEST + 3, dtype=torch.float64, device=p.device))
            q = logits[:, : -1 - k].float().softmax(-1)
            wanted, counts = batch.tokens[:, 1 + k :], batch.counts[:, 1 + k :]
            right = q.topk(min(BEST, q.shape[-1])).indices == wanted[..., None]
            straight = straight[:, : right.shape[1]] & right[..., 0]
            overlap = torch.minimum(p[:, k:-1], q).sum(-1)
            row = torch.cat([right[counts].sum(0), torch.stack((overlap[counts].sum(), straight[counts].sum(), counts.sum()))])
            sums[number][: right.shape[-1]] += row[: right.shape[-1]]
            sums[number][BEST:] += row[right.shape[-1] :]
    return [depth(recipe.first + number, row.tolist()) for number, row in enumerate(sums)]


def depth(k: int, sums: list[float]) -> dict:
    *right, overlap, path, count = sums
    count = max(count, 1.0)
    return {"depth": k, "ranks": [round(r / count, 5) for r in right], "overlap": overlap / count, "path": path / count}


def figures(depths: list[dict]) -> Settings:
    """What stands in the head's description."""
    found = {}
    for of in depths:
        values = {"top-1": of["ranks"][0], "top-5": sum(of["ranks"][:5]), "expected acceptance": of["overlap"]}
        values |= {"all right so far": of["path"]}
        found |= {f"depth {of['depth']}: {name}": round(value, 4) for name, value in values.items()}
    return found


def short(depths: list[dict]) -> str:
    """The figures in a line."""
    return "; ".join(
        f"depth {of['depth']}: top-1 {of['ranks'][0]:.3f}, top-5 {sum(of['ranks'][:5]):.3f}, expected acceptance "
        f"{of['overlap']:.3f}, right so far {of['path']:.3f}"
        for of in depths
    )


if __name__ == "__main__":
    main()
