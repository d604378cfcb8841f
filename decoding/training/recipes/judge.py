"""Train the judge of Judge Decoding: a linear layer that tells a mistaken token from a good one by the target's hidden state.

    python -m decoding.training judge --family embedded --data DIR

Bachmann et al. 2025, https://arxiv.org/abs/2501.19309. There people marked the place of the mistake in wrong answers; here mistakes
are made on purpose where they can be checked, so that nobody has to mark them:

- *result*: a wrong digit in what a calculation of GSM8K comes to; *copy*: a wrong digit where that result is repeated.
- *word*: a word of the answer replaced by one from elsewhere.
- *syntax*: a closing bracket of another kind or a lost colon in a Python function that then no longer compiles; *name*: an argument
  replaced by a name that occurs nowhere in the function.

Labelled 1 are all tokens of the right text, and the first token of another wording that is just as good (*wording*: a listed
synonym; in Python the other kind of quotes, checked by comparing the syntax trees). Labelled 0 is the token of the mistake. Nothing
behind a mistake is used, so a mistake is a leaf beside the right text, and one reading of the target judges all of them.

A model with a chat template sees each text as an answer: the question is the user's turn, or that a function or a story with this
beginning is wanted.

Weighted cross-entropy, label 0 counting min(20, N1 / N0) times, on standardised features; L-BFGS with L2, its strength chosen by
ROC-AUC on a tenth of the texts. The figures come from texts that are held out altogether, stories among them, of which the judge
has seen none. Prefixes are right text; the paper's are too, but at run time earlier tokens may be the judge's own.
"""

import argparse
import ast
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from decoding.draft import Draft
from decoding.methods.judge import KEY, score
from decoding.models.cache import TreeCache
from decoding.models.family import Family, load
from decoding.models.heads import SHIPPED_FOR, command, fingerprint, folder_for, save
from decoding.models.target import PRE_NORM
from decoding.retrieval.python_source import python_source
from decoding.sample import Sampling
from decoding.training.card import note_head
from decoding.training.conversations import template
from decoding.training.corpus import mathematics, stories
from decoding.training.figures import auc

MOST = 400  # tokens of a text
WRONG = ("result", "copy", "word", "syntax", "name")  # categories with label 0
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of L2
DELTA = 0.5
HALF = 65_504  # the largest float16
COMMON = 600  # words that are put in the wrong place
SYNONYMS = (
    ("So", "Then", "Thus", "Therefore", "Hence"),
    ("has", "owns"),
    ("more", "additional"),
    ("left", "remaining"),
    ("buys", "purchases"),
    ("gets", "receives"),
    ("needs", "requires"),
    ("each", "every"),
    ("because", "since"),
    ("also", "additionally"),
    ("total", "overall"),
    ("earned", "made"),
    ("is", "equals"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    family = load(options.family, options.family if options.family in SHIPPED_FOR else options.draft, options.device)
    work = options.work / KEY / fingerprint(family.target.model).mark
    kinds = texts(options.data, options.texts)
    learned = Examples.read(family, kinds["train"], work / "train")
    tests = {name: Examples.read(family, found, work / name) for name, found in kinds.items() if name != "train"}
    head, strength, validation = fitted(learned)
    figures = {"validation AUC": round(validation, 4)}
    for name, found in tests.items():
        figures |= {f"{name}: {what}": value for what, value in measured(found, head).items()}
    folder = folder_for(KEY, options.family, family.target.model)
    settings = {
        "width": len(head["weight"]),
        "L2": strength,
        "tokens": len(learned.labels),
        "mistakes": int((learned.labels == 0).sum()),
    }
    save(folder, KEY, family.target.model, head, settings, figures)
    if options.family == "embedded":
        note_head(
            folder.parent.parent / "README.md",
            KEY,
            f"Judge Decoding: a linear layer, from {settings['tokens']:,} tokens with {settings['mistakes']:,} mistakes",
            "; ".join(f"{name} {value:.3f}" for name, value in figures.items() if "AUC" in name),
            f"{command(KEY, options.family)} --data DIR",
        )
    print(json.dumps(figures, indent=1), folder, sep="\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="embedded", help="target: embedded, smollm2, a folder or a Hub id")
    parser.add_argument("--draft", help="a draft model; the judge does not read it")
    parser.add_argument("--data", type=Path, help="corpus folder (see decoding.training.corpus); Python source alone without it")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for what is not finished yet")
    parser.add_argument("--texts", type=int, default=900, help="texts of each kind to learn from")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


# -- texts and their mistakes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A text that leaves the right one at some place."""

    text: str
    category: str


@dataclass(frozen=True)
class Text:
    """A right text, where the part to be judged begins, and what else might stand there."""

    text: str
    start: int  # character
    kind: str  # "mathematics", "python", "stories"
    variants: tuple[Variant, ...]
    chat: bool = False  # special tokens stand in the text


def texts(data: Path | None, count: int) -> dict[str, list[Text]]:
    """Texts to learn from, and held-out ones by kind; the same ones every time."""
    train, held_out = [], {}
    sources = {"python": (python_text, *python_functions())}
    if data is not None:
        sources = {"mathematics": (maths_text, *mathematics(data))} | sources
    for kind, (make, learn, test) in sources.items():
        train += some(make, learn, count, seed=1)
        held_out[kind] = some(make, test, max(20, count // 4), seed=2)
    if data is not None:
        held_out["stories"] = some(story_text, stories(data)[1], max(20, count // 8), seed=3)
    random.Random(0).shuffle(train)
    return {"train": train} | held_out


def answered(family: Family, text: Text) -> Text:
    """The same text as an answer in the model's chat template; as it is where there is none."""
    if not family.tokenizer.chat_template:
        return text
    begun, cut = text.text[: text.start], text.start
    if text.kind == "mathematics":
        turn, opening, cut = begun.removeprefix("Question: ").removesuffix("\nAnswer:"), "", cut + 1  # its blank
    elif text.kind == "python":
        turn, opening = f"Write the Python function that begins with `{begun.strip()}`.", f"```python\n{begun}"
    else:
        turn, opening = f"Write a short story that begins with: {begun}", begun
    before = str(template(family, [{"role": "user", "content": turn}])) + opening
    variants = tuple(Variant(before + other.text[cut:], other.category) for other in text.variants)
    return Text(before + text.text[cut:], len(before), text.kind, variants, chat=True)


def some(make, sources: Sequence[str], count: int, seed: int) -> list[Text]:
    rng = random.Random(seed)
    chosen = rng.sample(range(len(sources)), min(count, len(sources)))
    counted = Counter(word for i in chosen for word in re.findall(r"[a-z]{3,}", sources[i]))
    words = [word for word, _ in counted.most_common(COMMON)]  # rare ones begin like many others
    return [make(sources[i], words, rng) for i in chosen]


def maths_text(text: str, words: Sequence[str], rng: random.Random) -> Text:
    start = text.index("Answer:") + len("Answer:")
    variants = []
    for found in re.finditer(r"<<[^=<>]*=([\d.,]+)>>([\d.,]*\d)?", text[start:]):
        for group, category in ((1, "result"), (2, "copy")):
            if found[group]:
                variants += [
                    Variant(text[: start + at] + digit + text[start + at + 1 :], category)
                    for at, digit in digits(found, group, rng)
                ]
    return Text(text, start, "mathematics", (*variants, *wordings(text, start, rng), *misplaced(text, start, words, rng)))


def digits(found: re.Match, group: int, rng: random.Random) -> list[tuple[int, str]]:
    """Two places of a number with another digit in each; never a number of the same value."""
    places = [i for i in range(found.start(group), found.end(group)) if found.string[i].isdigit()]
    whole = [i for i in places if "." not in found.string[found.start(group) : i]] or places  # .50 and .5 are one number
    chosen = rng.sample(whole, min(2, len(whole)))
    return [(i, rng.choice([d for d in "0123456789" if d != found.string[i]])) for i in chosen]


def wordings(text: str, start: int, rng: random.Random) -> Iterator[Variant]:
    """One other wording per set of synonyms that occurs."""
    for synonyms in SYNONYMS:
        places = [m for m in re.finditer(rf"\b({'|'.join(synonyms)})\b", text) if m.start() >= start]
        if places:
            found = rng.choice(places)
            other = rng.choice([word for word in synonyms if word != found[0]])
            yield Variant(text[: found.start()] + other + text[found.end() :], "wording")


def misplaced(text: str, start: int, words: Sequence[str], rng: random.Random, count: int = 4) -> Iterator[Variant]:
    """Words of the text replaced by ones from elsewhere."""
    listed = {word for synonyms in SYNONYMS for word in synonyms}
    places = [m for m in re.finditer(r"(?<= )[a-z]{3,}\b", text) if m.start() >= start and m[0] not in listed]
    for found in rng.sample(places, min(count, len(places))):
        other = rng.choice([word for word in words if word not in text and word not in listed] or ["xyzzy"])
        yield Variant(text[: found.start()] + other + text[found.end() :], "word")


def story_text(text: str, words: Sequence[str], rng: random.Random) -> Text:
    text = text[:1500]
    return Text(text, min(200, len(text) // 2), "stories", tuple(misplaced(text, min(200, len(text) // 2), words, rng, 8)))


def python_functions() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Functions of the standard library, 200 to 1,200 characters each."""
    return tuple(tuple(f for text in part for f in functions(text)) for part in python_source())


def functions(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            source = ast.get_source_segment(text, node)
            if source and 200 <= len(source) <= 1200:
                yield source


def python_text(text: str, words: Sequence[str], rng: random.Random) -> Text:
    start = text.index("\n") + 1
    variants = []
    for found in pick(re.finditer(r"[)\]}]|:(?=\n)", text), start, rng, 10):
        wrong = (
            text[: found.start()]
            + rng.choice([c for c in ")]}" if c != found[0]] if found[0] != ":" else [";", ","])
            + text[found.end() :]
        )
        if not compiles(wrong):
            variants.append(Variant(wrong, "syntax"))
    for found in pick(re.finditer(r'"[^"\\\n\']*"|\'[^\'\\\n"]*\'', text), start, rng, 3):
        other = "'" if found[0][0] == '"' else '"'
        same = text[: found.start()] + other + found[0][1:-1] + other + text[found.end() :]
        if compiles(same) and ast.dump(ast.parse(same)) == ast.dump(ast.parse(text)):
            variants.append(Variant(same, "wording"))
    names = [argument.arg for argument in ast.parse(text).body[0].args.args if len(argument.arg) > 2]
    unknown = [word for word in words if word not in text and word.isidentifier()]
    if names and unknown:
        for found in pick(re.finditer(rf"(?<![\w.'\"])({'|'.join(names)})\b(?!\s*=[^=])(?!['\"])", text), start, rng, 4):
            wrong = text[: found.start()] + rng.choice(unknown) + text[found.end() :]
            if compiles(wrong) and names_in(wrong) != names_in(text):  # not in a comment or a string
                variants.append(Variant(wrong, "name"))
    return Text(text, start, "python", tuple(variants))


def pick(found: Iterator[re.Match], start: int, rng: random.Random, count: int) -> list[re.Match]:
    places = [m for m in found if m.start() >= start]
    return rng.sample(places, min(count, len(places)))


def compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def names_in(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


# -- what the target thinks of them ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Tokens with their labels, in the order of the texts."""

    states: np.ndarray  # (n, width) float16, behind the token and before the final norm
    labels: np.ndarray  # (n,) 1 acceptable, 0 a mistake
    categories: np.ndarray  # (n,) "right" for tokens of the right text
    texts: np.ndarray  # (n,) the text it belongs to
    log_p: np.ndarray  # (n,) what the target gives the token itself

    @classmethod
    def read(cls, family: Family, found: Sequence[Text], folder: Path, chunk: int = 50) -> "Examples":
        """Of all texts; those that lie in `folder` already are not read again."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for first in tqdm(range(0, len(found), chunk), desc=f"target reads, {folder.name}", mininterval=5):
            file = folder / f"{first:05}-{len(found)}.npz"
            if not file.exists():
                rows = [states(family, answered(family, text), first + i) for i, text in enumerate(found[first : first + chunk])]
                fresh = folder / "fresh.npz"
                np.savez(fresh, **{name: np.concatenate([row[name] for row in rows]) for name in cls.__dataclass_fields__})
                fresh.replace(file)
            with np.load(file, allow_pickle=False) as kept:
                parts.append({name: kept[name] for name in cls.__dataclass_fields__})
        return cls(**{name: np.concatenate([part[name] for part in parts]) for name in cls.__dataclass_fields__})


def states(family: Family, text: Text, number: int) -> dict[str, np.ndarray]:
    """The labelled tokens of one text: the right ones are a chain, every variant's first other token is a leaf of it."""
    tokens, start, leaves = placed(family.tokenizer, text)
    draft = Draft(
        (*tokens[1:], *(token for token, _, _ in leaves)),
        (*range(-1, len(tokens) - 2), *(at - 2 for _, at, _ in leaves)),  # node i is token i + 1
        source=("text",) * (len(tokens) - 1 + len(leaves)),
    )
    output = family.target.read(TreeCache(), tokens[:1], draft, Sampling(1.0), (PRE_NORM,))
    wanted = [*range(start - 1, len(tokens) - 1), *range(len(tokens) - 1, len(draft))]
    above = torch.tensor([draft.parents[i] + 1 for i in wanted])
    log_p = output.probs.cpu()[above, torch.tensor([draft.tokens[i] for i in wanted])].clamp(min=1e-30).log()
    categories = ["right"] * (len(tokens) - start) + [category for _, _, category in leaves]
    return {
        "states": output.hidden[PRE_NORM][torch.tensor(wanted) + 1].clamp(-HALF, HALF).half().cpu().numpy(),
        "labels": np.array([category not in WRONG for category in categories], dtype=np.int8),
        "categories": np.array(categories, dtype="U8"),
        "texts": np.full(len(wanted), number),
        "log_p": log_p.numpy(),
    }


def placed(tokenizer: PreTrainedTokenizerBase, text: Text) -> tuple[list[int], int, list[tuple[int, int, str]]]:
    """The right text's tokens, the first one to be judged, and the variants as (token, its place, category).

    A variant counts as the first token in which it differs, if that lies in the judged part.
    """
    read = lambda said: tokenizer(said, add_special_tokens=not text.chat)["input_ids"]  # noqa: E731
    tokens = read(text.text)[:MOST]
    start = max(1, common(tokens, read(text.text[: text.start])))
    leaves = []
    for variant in text.variants:
        other = read(variant.text)[:MOST]
        at = common(tokens, other)
        if start <= at < min(len(tokens), len(other)):
            leaves.append((other[at], at, variant.category))
    return tokens, start, leaves


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# -- the head ----------------------------------------------------------------------------------------------------------


def fitted(found: Examples) -> tuple[dict[str, Tensor], float, float]:
    """The head, the strength of L2 with the best ROC-AUC on every tenth text, and that AUC."""
    test = found.texts % 10 == 0
    states, labels = torch.from_numpy(found.states.astype(np.float32)), torch.from_numpy(found.labels.astype(np.float32))
    learn = torch.from_numpy(~test)
    tried = []
    for strength in tqdm(STRENGTHS, desc="judge"):
        head = logistic(states[learn], labels[learn], strength)
        scores = score(states[~learn], head).numpy().astype(np.float64)
        tried.append((auc(scores, found.labels[test].astype(np.float64)), strength, head))
    best = max(tried, key=lambda entry: entry[0])
    return best[2], best[1], best[0]


def logistic(states: Tensor, labels: Tensor, strength: float, rounds: int = 200) -> dict[str, Tensor]:
    """Weighted logistic regression on standardised features: label 0 counts min(20, N1 / N0) times.

    Args:
        states: (n, width).
        labels: (n,) 0 or 1.
        strength: of L2 on the weights, relative to the mean loss.
    """
    mean, scale = states.mean(0), states.std(0).clamp(min=1e-6)
    features = (states - mean) / scale
    rare = min(20.0, float(labels.sum() / (1 - labels).sum().clamp(min=1)))
    counts = torch.where(labels > 0, 1.0, rare)
    weight, bias = torch.zeros(states.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=rounds, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = torch.nn.functional.binary_cross_entropy_with_logits(features @ weight + bias, labels, weight=counts)
        value = each * len(labels) / counts.sum() + strength * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return {"mean": mean, "scale": scale, "weight": weight.detach(), "bias": bias.detach()}


def measured(found: Examples, head: dict[str, Tensor]) -> dict[str, float]:
    """ROC-AUC over all tokens, of the judge and of the token's own log p; of each category of mistakes against all good tokens; at
    DELTA the share of mistakes refused by category, and of good tokens let through."""
    scores = score(torch.from_numpy(found.states.astype(np.float32)), head).numpy().astype(np.float64)
    labels = found.labels.astype(np.float64)
    figures = {"AUC": auc(scores, labels), "AUC of log p": auc(found.log_p.astype(np.float64), labels)}
    good = found.labels == 1
    for category in WRONG:
        wrong = found.categories == category
        if wrong.any():
            figures[f"AUC {category}"] = auc(scores[good | wrong], labels[good | wrong])
            figures[f"{category} refused"] = float((scores[wrong] <= DELTA).mean())
    for category in ("right", "wording"):
        if (these := found.categories == category).any():
            figures[f"{category} let through"] = float((scores[these] > DELTA).mean())
    return {name: round(value, 4) for name, value in figures.items()}


if __name__ == "__main__":
    main()
