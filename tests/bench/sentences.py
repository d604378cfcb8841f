"""What the vectors of SentenceVAE hold and what they are worth: python -m tests.bench.sentences [--data DIR] [--family embedded].

Two tables in Markdown; without texts the second one alone. How many tokens of a sentence come back at their place when the decoder
writes it alone, from the sentence's own vector and from the one that foretold it: on text that the model may have learned, and on
text that was held out, by the length of the sentence. And tau on the prompts of `decoding.runs.evaluate` with the vector made once
per sentence, at every call, that of the sentence before, and none; and of a drawn chain.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

from decoding.models.family import Family, load
from decoding.runs.evaluate import PROMPTS
from decoding.runs.run import Run
from decoding.runs.sentence_text import GiveBack
from decoding.sample import Sampling
from decoding.training.corpus import domains

TEXTS, READ = 6, 160  # texts of every domain, tokens of each
LENGTHS = ((4, 10), (11, 20), (21, 32))
VARIANTS = (
    *({"vector": vector} for vector in ("once per sentence", "at every call", "of the sentence before", "none")),
    {"shape": "chain"},
)


def accuracy(family: Family, texts: Iterable[str]) -> dict[tuple[int, int], list[int]]:
    """Range of lengths -> tokens, right from e, right from z."""
    found: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for text in texts:
        job = GiveBack(family, family.tokenizer(text[: 8 * READ])["input_ids"][:READ])
        while not job.ended:
            next(job)
        for sentence, again, foretold, _ in job.steps:
            sums = found[next(span for span in LENGTHS if span[0] <= len(sentence) <= span[1])]
            sums[0] += len(sentence)
            sums[1] += sum(a == b for a, b in zip(sentence, again, strict=False))
            sums[2] += sum(a == b for a, b in zip(sentence, foretold, strict=False))
    return found


def tau(family: Family, params: dict[str, str], tokens: int) -> float:
    """Tokens per target call over all prompts, at temperature 0."""
    calls = written = 0
    for prompt in chain.from_iterable(PROMPTS.values()):
        run = Run(family, "sentence_vae", params, prompt, Sampling(0), max_tokens=tokens, record=False)
        written += sum(len(step.tokens) for step in run)
        calls += len(run.steps)
    return written / calls


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the corpus folder, whose sentences are given back")
    parser.add_argument("--family", default="embedded")
    parser.add_argument("--tokens", type=int, default=64, help="of a run")
    options = parser.parse_args(arguments)
    family = load(options.family, device="cpu")
    if options.data is not None:
        given_back(family, options.data)
    print("| what is other than usual | tau, T = 0 |\n|---|---|")
    for params in VARIANTS:
        said = ", ".join(f"{name}: {value}" for name, value in params.items())
        print(f"| {said} | {tau(family, params, options.tokens):.2f} |", flush=True)


def given_back(family: Family, data: Path) -> None:
    """The first table."""
    print("| text | tokens of a sentence | tokens | from its vector | foretold |\n|---|---|---|---|---|")
    for domain in domains(data):
        for name, texts in (("learned", domain.train), ("held out", domain.held_out)):
            found = accuracy(family, islice(texts, 0, None, max(1, len(texts) // TEXTS)))
            for (low, high), (total, again, foretold) in sorted(found.items()):
                shares = f"{total:,} | {again / total:.2f} | {foretold / total:.2f}"
                print(f"| {domain.name}, {name} | {low} to {high} | {shares} |", flush=True)
    print()


if __name__ == "__main__":
    main()
