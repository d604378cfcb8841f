"""Learn to read out of a target's states how much of a sentence or an answer is still to come, for the lens of horizons.

    python -m decoding.training horizon --family embedded --data DIR

The target stays as it is. Sentences are those of held-out tales. Answers are those of held-out word problems or, for a chat model,
what it answers itself to questions of the corpus and of its own, as far as it came to an end. Four readers are fitted on half of
the texts and measured on a quarter that neither they nor the choice of the layer (another quarter) saw: the position alone, a ridge
regression on the states of a layer, the same with the position, and the head of Ding et al. 2024 (https://arxiv.org/abs/2410.03103,
section 3: linear and a sigmoid, mean absolute error) on the state behind the final norm. Resumable: the states of every finished
group of texts stay in the work folder.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from decoding.models.family import Family, load
from decoding.models.heads import fingerprint
from decoding.models.horizons import ANSWER, SENTENCE, SHIPPED, ending_tokens, own_file, sentence_lengths
from decoding.models.names import EMBEDDED_TARGETS
from decoding.training.conversations import own_questions, picked, questions, rendered, written
from decoding.training.corpus import mathematics, read, stories
from decoding.training.horizon_figures import Rows, auc, by_position, figures, medians, ridge

GROUP = 16  # texts whose states lie in one file
WINDOW = 256  # tokens of a tale
SHORTEST, LONGEST = 5, 60  # tokens of a sentence
MOST = 224  # tokens of an answer
ASKED = 32  # questions that a chat model is asked at once
HALF = 65_504.0  # the largest float16
SAID = {SENTENCE: "sentences of held-out tales", ANSWER: "held-out word problems with their answers"}
OWN = "what the model itself answered to questions"
STEPS, LR = 400, 0.02  # of the trained head


@dataclass(frozen=True)
class Text:
    """Tokens, and which stretches of them are units."""

    tokens: tuple[int, ...]
    units: tuple[tuple[int, int], ...]  # (first token, tokens)


@dataclass(frozen=True)
class Seen:
    """What was read of texts: a row per token of a unit."""

    rows: Rows
    text: np.ndarray  # (rows,) which text
    states: dict[int, np.ndarray]  # layer -> (rows, width)
    end: np.ndarray  # (rows,) probability that the unit's last token is next, of an answer the end token


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    family = load(options.family, device=options.device)
    made = {unit: learned(family, unit, options) for unit in options.units}
    file = SHIPPED if options.family in ("smollm2", *EMBEDDED_TARGETS) else own_file()
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    mark = fingerprint(family.target.model)
    model = {"shapes": mark.shapes, "values": short(np.array(mark.values))}
    known[options.family] = {**known.get(options.family, {}), "model": model, **made}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, separators=(",", ":")).replace('},"', '},\n"') + "\n", "utf-8")
    print(json.dumps({unit: one["figures"] for unit, one in made.items()}, indent=1))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", default="embedded", help="target: embedded, smollm2, a folder or a Hub id")
    parser.add_argument("--data", type=Path, required=True, help="corpus folder (see decoding.training.corpus)")
    parser.add_argument("--units", nargs="+", choices=list(SAID), default=list(SAID), help="whose horizon is learned")
    parser.add_argument("--texts", type=int, default=160, help="tales, and answers, that are read")
    parser.add_argument("--work", type=Path, default=Path(".training/horizon"), help="folder for what is not finished yet")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    if options.texts < 4 * GROUP:
        parser.error(f"At least {4 * GROUP} texts are needed; {options.texts} were asked for.")
    return options


# -- texts -------------------------------------------------------------------------------------------------------------


def groups_of(family: Family, unit: str, options: argparse.Namespace) -> list[Callable[[], list[Text]]]:
    """What makes each group of texts; the same ones every time."""
    if unit == SENTENCE:
        held_out = stories(options.data)[1]
        return [partial(tales, family, held_out, number) for number in range(-(-options.texts // GROUP))]
    if family.chats:  # about half of what it answers comes to an end
        asked = questions(read(options.data))["mathematics"]
        return [partial(answered, family, asked, number) for number in range(-(-2 * options.texts // ASKED))]
    texts = mathematics(options.data)[1][: options.texts]
    return [partial(solved, family, texts[start : start + GROUP]) for start in range(0, len(texts), GROUP)]


def tales(family: Family, texts: Sequence[str], number: int) -> list[Text]:
    """Windows from anywhere in them."""
    rng = np.random.default_rng((5, number))
    return [tale(family, texts[rng.integers(len(texts))], rng) for _ in range(GROUP)]


def tale(family: Family, text: str, rng: np.random.Generator) -> Text:
    """A window of a text; its sentences of a fit length, but for the first, which may begin in the middle."""
    start = int(rng.integers(max(1, len(text) - 6 * WINDOW)))
    tokens = encoded(family, text[start : start + 8 * WINDOW])[: min(WINDOW, family.target.context)]
    pieces = family.token_bytes(tokens)
    units, begin = [], 0
    for length in sentence_lengths([pieces[token] for token in tokens])[0]:
        units += [(begin, length)] if SHORTEST <= length <= LONGEST and begin and begin + length < len(tokens) else []
        begin += length
    return Text(tuple(tokens), tuple(units))


def encoded(family: Family, text: str) -> list[int]:
    return family.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def solved(family: Family, texts: Sequence[str]) -> list[Text]:
    """Word problems and their answers, which the model did not write."""
    found = []
    for text in texts:
        question, mark, answer = text.partition("\nAnswer:")
        before, behind = encoded(family, question + mark), encoded(family, answer)
        found.append(Text(tuple(before + behind), ((len(before), len(behind)),)))
    return found


def answered(family: Family, asked: Sequence[tuple[str, str]], number: int) -> list[Text]:
    """What a chat model answers, to word problems and to what it asks itself, one half greedily; what has no end within MOST tokens
    is left out."""
    rng = np.random.default_rng((9, number))
    turns = own_questions(family, number)[:ASKED] if number % 2 else [turn for turn, _ in picked(asked, rng, ASKED)]
    prompts = [rendered(family, [{"role": "user", "content": turn}]) for turn in turns]
    found = written(family.target, prompts, MOST, greedy=number % 4 < 2, seed=number)
    pairs = zip(prompts, found, strict=True)
    return [Text((*p, *a), ((len(p), len(a)),)) for p, a in pairs if SHORTEST <= len(a) < MOST]


# -- reading -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def learned(family: Family, unit: str, options: argparse.Namespace) -> dict[str, Any]:
    """Read all groups that are not kept already, and fit."""
    folder = options.work / f"{options.family.replace('/', '_')}-{unit}"
    folder.mkdir(parents=True, exist_ok=True)
    layers, parts = layers_of(family), []
    for number, make in enumerate(tqdm(groups_of(family, unit, options), desc=f"{options.family}, {unit}", mininterval=5)):
        file = folder / f"{number}.npz"
        if not file.is_file():
            np.savez(fresh := file.with_suffix(".new.npz"), **read_out(family, unit, make(), layers))
            fresh.replace(file)
        with np.load(file) as kept:
            parts.append({name: kept[name] for name in kept})
    said = OWN if unit == ANSWER and family.chats else SAID[unit]
    return fitted(together(parts, layers), unit, said, family.target.last_hidden)


def layers_of(family: Family) -> list[int]:
    """A third of the way, two thirds, and behind the final norm."""
    last = family.target.last_hidden
    return [round(last / 3), round(2 * last / 3), last]


def read_out(family: Family, unit: str, texts: Sequence[Text], layers: Sequence[int]) -> dict[str, np.ndarray]:
    """What the target says along the units of some texts, as arrays."""
    ending = ending_tokens(family, unit)
    lengths = [[length for _, length in text.units] for text in texts]
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    ends: list[Tensor] = []
    for text in texts:
        logits, hidden = family.target.extend_with_hidden(family.target.new_cache(), text.tokens, layers, every_row=True)
        at = torch.tensor([i for start, length in text.units for i in range(start, start + length)], dtype=torch.long)
        ends.append(logits[at].softmax(-1)[:, ending].sum(-1).cpu())
        for layer in layers:
            states[layer].append(hidden[layer][at].float().clamp(-HALF, HALF).half().cpu())
    kept = {f"layer {layer}": torch.cat(rows).numpy() for layer, rows in states.items()}
    of = [i for i, sizes in enumerate(lengths) for _ in sizes]
    return kept | {
        "end": torch.cat(ends).numpy(),
        "lengths": np.array(sum(lengths, [])),
        "of": np.array(of),
        "texts": np.array(len(texts)),
    }


def together(parts: Sequence[dict[str, np.ndarray]], layers: Sequence[int]) -> Seen:
    """All groups, side by side."""
    rows = Rows.of(np.concatenate([part["lengths"] for part in parts]).astype(int))
    firsts = np.cumsum([0, *(int(part["texts"]) for part in parts)])
    of_unit = np.concatenate([part["of"] + first for part, first in zip(parts, firsts, strict=False)]).astype(int)
    states = {layer: np.concatenate([part[f"layer {layer}"] for part in parts]).astype(np.float64) for layer in layers}
    return Seen(rows, of_unit[rows.unit], states, np.concatenate([part["end"] for part in parts]))


# -- fitting -----------------------------------------------------------------------------------------------------------


def fitted(seen: Seen, unit: str, said: str, last: int) -> dict[str, Any]:
    """All readers, with what each is worth; plain numbers for the file. `next` is how well a reader tells that the end comes
    next (AUC)."""
    learn, choose, test = (np.isin(seen.text % 4, which) for which in ((0, 1), (2,), (3,)))
    rows, y = seen.rows, seen.rows.y
    position = medians(rows.chosen(learn), int(rows.length.max()))
    counted = by_position(rows, position)[:, None]
    weights = {layer: ridge(states[learn], y[learn]) for layer, states in seen.states.items()}
    foretold = {layer: linear(seen.states[layer], found) for layer, found in weights.items()}
    layer = min(foretold, key=lambda one: abs(foretold[one] - y)[choose].mean())
    beside = np.concatenate([seen.states[layer], counted], axis=1)
    both = ridge(beside[learn], y[learn])
    head = trained_head(seen.states[last], y, learn, choose)
    found = {
        "always .5": np.full(len(y), 0.5),
        "position": counted[:, 0],
        **{f"layer {one}": values for one, values in foretold.items()},
        "state": foretold[layer],
        "state and position": linear(beside, both),
        "head": 1 / (1 + np.exp(-(seen.states[last] @ head[:-1] + head[-1]))),
    }
    told = {name: figures(values[test], rows.chosen(test)) for name, values in found.items()}
    behind = int(unit == SENTENCE)  # its mark is a token of it, an answer's end token is none
    count = test & (rows.left >= behind)
    for name, score in {**{name: -values for name, values in found.items()}, "end token": seen.end}.items():
        told.setdefault(name, {})["next"] = round(auc(score[count], rows.left[count] == behind), 4)
    sizes = {"learned": int(learn.sum()), "tested": int(test.sum()), "length": round(float(rows.length[test].mean()), 1)}
    vectors = {"ridge": short(weights[layer]), "both": short(both), "head": short(head)}
    return {"said": said, "layer": layer, "position": list(position), **vectors, "figures": {**told, "tokens": sizes}}


def linear(states: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(rows,) a share, as it is used."""
    return (states @ weights[:-1] + weights[-1]).clip(0, 1)


def trained_head(states: np.ndarray, y: np.ndarray, learn: np.ndarray, choose: np.ndarray) -> np.ndarray:
    """(width + 1,) the paper's head on frozen states; of all its steps the one that is best on the choosing part."""
    mean, scale = states[learn].mean(0), states[learn].std(0) + 1e-6
    z, wanted = torch.from_numpy((states - mean) / scale).float(), torch.from_numpy(y).float()
    with torch.inference_mode(False), torch.enable_grad():
        z, wanted = z.clone(), wanted.clone()
        w = torch.zeros(z.shape[1] + 1, requires_grad=True)
        optimizer = torch.optim.Adam([w], lr=LR)
        best, kept = np.inf, w.detach().clone()
        known, held = torch.from_numpy(learn), torch.from_numpy(choose)
        for _ in range(STEPS):
            error = ((z @ w[:-1] + w[-1]).sigmoid() - wanted).abs()
            if (now := error[held].detach().mean().item()) < best:
                best, kept = now, w.detach().clone()
            error[known].mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    weights = kept.double().numpy()
    own = weights[:-1] / scale
    return np.append(own, weights[-1] - mean @ own)


def short(values: np.ndarray) -> list[float]:
    """Five digits of each."""
    return [float(f"{value:.5g}") for value in values]
