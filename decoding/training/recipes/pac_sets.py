"""Calibrate the lens of PAC prediction sets: drafts in held-out text, and the budget up to which the target's own text is inside.

    python -m decoding.training pac_sets --family embedded --data DIR

Every example is a random place between two words of a held-out document. The draft model writes a sentence or a line
from there, the target too, both greedily; kept is one number per example and number of holes (`holds_up_to`). The first half is
what budgets are chosen on, the second half is never shown to that choice. Resumable: the same command goes on after the last
example.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from decoding.lenses.pac_sets import CODE, HOLES, SHIPPED, TEXT, judged, models_of, own_file, written
from decoding.lenses.pac_sets import DRAFT_TOKENS as DRAFTED
from decoding.lenses.pac_sets import TRUE_TOKENS as TRUE
from decoding.models.family import Family, load
from decoding.models.names import EMBEDDED_TARGETS
from decoding.prediction_sets.calibration import holds_up_to
from decoding.retrieval.python_source import python_source
from decoding.training.corpus import stories

SHORT, LONG = 32, 96  # tokens of a context
SAID = {TEXT: "sentences of held-out stories", CODE: "lines of held-out Python"}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    family = load(options.family, options.draft, options.device)
    if family.draft is None:
        raise SystemExit(f"The family {family.name} has no draft model, so it has no drafts to calibrate. Name one with --draft.")
    texts = {CODE: python_source()[1]}
    if options.data is not None:
        texts[TEXT] = stories(options.data)[1]
    made = {kind: measured(family, kind, found, options) for kind, found in texts.items() if kind in options.kinds}
    shipped = options.family in ("smollm2", *EMBEDDED_TARGETS) and options.draft is None
    file = SHIPPED if shipped else own_file()
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for kinds in made.values():
        kinds["models"] = models_of(family)
    known[family.name] = {**known.get(family.name, {}), **made}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, separators=(",", ":")).replace('},"', '},\n"') + "\n", "utf-8")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", default="embedded", help="target: embedded, smollm2, a folder or a Hub id")
    parser.add_argument("--draft", help="a draft model, if not the shipped one")
    parser.add_argument("--data", type=Path, help="corpus folder (see decoding.training.corpus); Python source alone without it")
    parser.add_argument("--kinds", nargs="+", choices=SAID, default=list(SAID), help="of text")
    parser.add_argument("--examples", type=int, default=200, help="drafts to calibrate on, and as many to test on")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for what is not finished yet")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


@torch.inference_mode()
def measured(family: Family, kind: str, texts: Sequence[str], options: argparse.Namespace) -> dict:
    """Of one kind of text: holes -> what both halves hold up to."""
    file = options.work / "pac_sets" / f"{family.name.replace('/', '_')}-{kind}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    with file.open("a", encoding="utf-8") as out:
        for number in tqdm(range(len(rows), 2 * options.examples), desc=f"{family.name}, {kind}", mininterval=5):
            rows.append(example(family, kind, texts, number))
            out.write(json.dumps(rows[-1]) + "\n")
            out.flush()
    n = options.examples
    holds = {
        str(m): {"calibration": [row[str(m)] for row in rows[:n]], "held out": [row[str(m)] for row in rows[n : 2 * n]]}
        for m in HOLES
    }  # fmt: skip
    return {"said": SAID[kind], "holds": holds}


def example(family: Family, kind: str, texts: Sequence[str], number: int) -> dict[str, float]:
    """Holes -> the budget that one draft holds up to; the number decides which."""
    assert family.draft is not None
    context = context_of(family, kind, texts, random.Random(f"pac sets {kind} {number}"))
    *_, draft = written(family, family.draft, context, kind, DRAFTED)
    *_, truth = written(family, family.target, context, kind, TRUE)
    tree, prices, true_tree, _ = judged(family, context, kind, draft, truth)
    return {str(m): round(holds_up_to(tree, prices, true_tree, m), 6) for m in HOLES}


def context_of(family: Family, kind: str, texts: Sequence[str], rng: random.Random) -> tuple[int, ...]:
    """The last tokens in front of a random blank of a random document; of Python in a line that is neither empty nor a comment."""
    while True:
        text = rng.choice(texts)
        at = text.find(" ", rng.randrange(len(text) + 1))
        line = text[text.rfind("\n", 0, max(at, 0)) + 1 :].split("\n", 1)[0].strip()
        if at < 0 or (kind == CODE and (not line or line.startswith("#"))):
            continue
        while text[at + 1 : at + 2] == " ":  # the last blank belongs to the word behind it
            at += 1
        tokens = family.tokenizer(text[max(0, at - 8 * LONG) : at], add_special_tokens=False, verbose=False)["input_ids"]
        if len(tokens) >= SHORT:
            return tuple(tokens[-LONG:])
