"""What LazyLLM saves and what it costs: python -m tests.bench.lazyllm --texts FILE [--family smollm2] [--needles 40].

Long prompts, a document with a question behind it, are read by the full model and by the pruned ones in turn. Printed are three
tables in Markdown: the time to the first token as a ratio of process times, with the median and the range over the prompts, and
the share of prompt tokens that the layers never read, behind the first token and behind all of them; the damage, row by row over
the full model's own greedy text (KL in nats, top-1, overlap), beside random dropping and static pruning; and how often the answer
of a needle prompt (`tests.needles`) is found. Times are of this process alone (`time.process_time`), so that other programs hardly
matter.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import torch

from decoding.draft import EMPTY
from decoding.models.family import Family, load
from decoding.models.lazy_target import ATTENTION, RANDOM, STATIC, LazyTarget
from decoding.sample import Sampling
from tests.needles import needle

GREEDY = Sampling(temperature=0)
Shares = tuple[float, float, float]
SHARES: tuple[Shares, ...] = ((0.7, 0.7, 0.7), (0.7, 0.5, 0.3), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
CONTROLS: tuple[Shares, ...] = ((0.7, 0.7, 0.7), (0.5, 0.5, 0.5))
LENGTHS = (500, 1_000, 2_000)
QUESTION = "What is this text about? Answer in one sentence."
CHAT = "<|im_start|>user\n{}\n\n{}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Damage:
    """Means over the tokens of one prompt."""

    kl_first: float
    kl: float
    top_1: float
    overlap: float
    never: float  # share of the prompt that the top layer never read
    work: float  # passes of a row through a layer, of the full model's


def documents(file: Path, family: Family, length: int) -> Iterator[list[int]]:
    """Token ids of a document that is cut to about so many tokens, with the question behind it."""
    for line in file.read_text("utf-8").splitlines():
        text = json.loads(line)["text"] if line.startswith("{") else line
        tokens = family.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) > length:
            cut = family.tokenizer.decode(tokens[: length - 30])
            yield family.tokenizer(CHAT.format(cut, QUESTION) if family.chats else f"{cut}\n{QUESTION}\n")["input_ids"]


def timed(read: Callable[[], object]) -> float:
    start = process_time()
    read()
    return process_time() - start


@torch.inference_mode()
def first_token(lazy: LazyTarget, tokens: Sequence[int]) -> Callable[[], object]:
    """Everything up to the logits of the first token, from an empty cache."""

    def read() -> None:
        cache = lazy.new_cache()
        lazy.extend_with_hidden(cache, tokens[:-1])
        lazy.read(cache, tokens, EMPTY, GREEDY)

    return read


@torch.inference_mode()
def first_token_of_full(lazy: LazyTarget, tokens: Sequence[int]) -> Callable[[], object]:
    def read() -> None:
        cache = lazy.target.new_cache()
        lazy.target.extend(cache, tokens[:-1])
        lazy.target.read(cache, tokens, EMPTY, GREEDY)

    return read


def ratios(targets: Sequence[LazyTarget], tokens: Sequence[int], rounds: int) -> list[float]:
    """Process time of the full model over that of each pruned one, medians of interleaved rounds behind one that does not count."""
    reads = [first_token_of_full(targets[0], tokens), *(first_token(lazy, tokens) for lazy in targets)]
    found = [[timed(read) for read in reads] for _ in range(1 + rounds)][1:]
    full, *pruned = (statistics.median(of) for of in zip(*found, strict=True))
    return [full / one for one in pruned]


@torch.inference_mode()
def never_read(lazy: LazyTarget, prompt: Sequence[int], steps: int) -> tuple[list[float], list[float], float]:
    """Per stage the share of the prompt that its layers never read, behind the first call and behind all; the work, of the full
    model's. The text is the pruned model's own, greedily."""
    cache, tokens, first, mine, full = lazy.new_cache(), list(prompt), [], 0, 0
    lazy.extend_with_hidden(cache, tokens[:-1])
    for _ in range(steps):
        output = lazy.read(cache, tokens, EMPTY, GREEDY)
        cache.keep([0])
        tokens.append(int(output.logits[0].argmax()))
        mine, full = mine + output.pruned.passes, full + output.pruned.full_passes
        first = first or list(1 - cache.computed[:, : len(prompt)].mean(1))
    return first, list(1 - cache.computed[:, : len(prompt)].mean(1)), mine / full


@torch.inference_mode()
def damage(lazy: LazyTarget, prompt: Sequence[int], steps: int) -> Damage:
    """Over the full model's own greedy text."""
    lazy = replace(lazy, compared=True)
    cache, tokens, rows, mine, full = lazy.new_cache(), list(prompt), [], 0, 0
    lazy.extend_with_hidden(cache, tokens[:-1])
    for _ in range(steps):
        output = lazy.read(cache, tokens, EMPTY, GREEDY)
        assert output.full_logits is not None
        p, pruned = output.full_logits[0].log_softmax(-1), output.logits[0].log_softmax(-1)
        kl = float((p.exp() * (p - pruned)).nansum())
        rows.append((kl, float(p.argmax() == pruned.argmax()), float(torch.minimum(p.exp(), pruned.exp()).sum())))
        mine, full = mine + output.pruned.passes, full + output.pruned.full_passes
        cache.keep([0])
        tokens.append(int(p.argmax()))
    kls, same, overlaps = zip(*rows, strict=True)
    never = 1 - float(cache.computed[-1, : len(prompt)].mean())
    return Damage(kls[0], statistics.mean(kls), statistics.mean(same), statistics.mean(overlaps), never, mine / full)


@torch.inference_mode()
def answers(lazy: LazyTarget, family: Family, count: int, sentences: int) -> tuple[int, float]:
    """Of so many needle prompts: how often the answer's first token is the likeliest, and its mean probability."""
    hits, total = 0, 0.0
    for number in range(count):
        asked = needle(number, sentences)
        tokens = family.tokenizer(asked.prompt)["input_ids"]
        answer = family.tokenizer(asked.answer, add_special_tokens=False)["input_ids"][0]
        cache = lazy.new_cache()
        lazy.extend_with_hidden(cache, tokens[:-1])
        p = lazy.read(cache, tokens, EMPTY, Sampling(1.0)).probs[0]
        hits, total = hits + int(p.argmax() == answer), total + float(p[answer])
    return hits, total / count


def said(shares: Sequence[float]) -> str:
    """
    >>> said((0.7, 0.7, 0.7)), said((0.7, 0.5, 0.3))
    ('0.7', '0.7 / 0.5 / 0.3')
    """
    return f"{shares[0]:g}" if len(set(shares)) == 1 else " / ".join(f"{share:g}" for share in shares)


def line(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def first_tokens(family: Family, options: argparse.Namespace) -> None:
    """The first table."""
    line("prompt tokens", "keep", "first token, times sooner", "never read by the stages, first call", "behind all", "work of all")
    line(*["---"] * 6)
    for length in options.lengths:
        prompts = [tokens for tokens, _ in zip(documents(options.texts, family, length), range(options.prompts), strict=False)]
        if not prompts:
            sys.exit(f"No document of {options.texts} has {length:,} tokens.")
        targets = [LazyTarget(family.target, shares) for shares in SHARES]
        sooner = list(zip(*(ratios(targets, tokens, options.rounds) for tokens in prompts), strict=True))
        for lazy, times in zip(targets, sooner, strict=True):
            found = [never_read(lazy, tokens, options.steps) for tokens in prompts]
            first, behind = (
                " ".join(f"{statistics.mean(of):.2f}" for of in zip(*(one[part] for one in found), strict=True)) for part in (0, 1)
            )
            spread = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
            line(length, said(lazy.shares), spread, first, behind, f"{statistics.mean(work for *_, work in found):.2f}")


def damages(family: Family, options: argparse.Namespace) -> None:
    """The second table."""
    line("keep", "who stays", "KL, first token", "KL", "top-1", "overlap", "never in the top layer", "work")
    line(*["---"] * 8)
    length = options.lengths[0]
    prompts = [tokens for tokens, _ in zip(documents(options.texts, family, length), range(options.prompts), strict=False)]
    settings = [(shares, ATTENTION) for shares in SHARES] + [(s, by) for s in CONTROLS for by in (RANDOM, STATIC)]
    for shares, by in settings:
        found = [damage(LazyTarget(family.target, shares, by), tokens, options.steps) for tokens in prompts]
        means = [statistics.mean(vars(one)[name] for one in found) for name in vars(found[0])]
        line(said(shares), by, *(f"{mean:.3f}" for mean in means[:2]), *(f"{mean:.2f}" for mean in means[2:]))


def needles(family: Family, options: argparse.Namespace) -> None:
    """The third table."""
    line("keep", "who stays", f"answers of {options.needles}", "mean p of the answer")
    line(*["---"] * 4)
    settings = [((1.0, 1.0, 1.0), ATTENTION)] + [((s, s, s), by) for s in (0.9, 0.7, 0.5) for by in (ATTENTION, RANDOM)]
    for shares, by in settings:
        hits, mean = answers(LazyTarget(family.target, shares, by), family, options.needles, options.sentences)
        line(said(shares), "all" if shares[0] == 1 else by, hits, f"{mean:.3f}")


PARTS = {"times": first_tokens, "damage": damages, "needles": needles}


def main() -> None:
    parser = argparse.ArgumentParser(description="What LazyLLM saves and what it costs.")
    parser.add_argument("--texts", type=Path, required=True, help="documents, a line each: text, or JSON with a text")
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="of the prompts, tokens")
    parser.add_argument("--prompts", type=int, default=2, help="of each length")
    parser.add_argument("--rounds", type=int, default=2, help="of each prompt, all in turn")
    parser.add_argument("--steps", type=int, default=24, help="tokens")
    parser.add_argument("--needles", type=int, default=40, help="prompts with a needle")
    parser.add_argument("--sentences", type=int, default=18, help="of a needle prompt")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    family = load(options.family, device="cpu")
    for part in options.parts:
        PARTS[part](family, options)
        print()


if __name__ == "__main__":
    main()
