"""Benchmark, not a test: speed of the loop on a family that ships, against `transformers` in the same run.

    python -m tests.bench.step [--family embedded] [--methods plain,speculative_sampling] [--rounds 3] [--tokens 128] [--length 5]

Prints one row per method: tau, tokens per second without and with the trace, the share of a step that recording takes, and
the speed as a ratio to the `transformers` call that does the same. Every round runs every row once, so that a machine whose
speed drifts slows all rows alike; figures are medians over rounds.
"""

import argparse
import os
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from decoding import record
from decoding.methods import METHODS
from decoding.models.family import SHIPPED, Family, load, opened_from
from decoding.models.names import SHIPPED_DRAFTS, SHIPPED_TARGETS
from decoding.runs.evaluate import known
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Step

PROMPTS = (
    "Once upon a time there was a little girl who lived near the forest. One day she",
    "Question: Tom has 12 apples and buys 7 more every day. How many apples does he have after 5 days?\nAnswer:",
    'import os\n\n\ndef read_lines(path):\n    """Return the lines of a file."""\n',
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="embedded", choices=("embedded", "smollm2"))
    parser.add_argument("--methods", type=known, default=list(METHODS), help="keys, parted by commas; all of them if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--length", type=int, default=5, help="draft length of speculative and assisted decoding")
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args()
    family = load(options.family)
    rows = list(ours(family, options)) + list(theirs(family, options))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in rows}
    for _ in range(options.rounds):
        for name, run in rows:
            found[name].append(run())
    show(found, options)


def show(found: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> None:
    """Print the table; the last column compares with the row of `transformers` that does the same."""
    speeds = {name: median(speed for speed, _ in values) for name, values in found.items()}
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {options.tokens} tokens, "
        f"temperature {options.temperature:g}, {options.rounds} rounds, medians"
    )
    print(f"{'':38}{'tau':>6}{'tokens/s':>10}{'recording':>11}{'ratio':>7}  to")
    partners = {
        "plain": "generate",
        "speculative_sampling": "generate, assisted",
        "prompt_lookup": "generate, prompt lookup",
    }
    for name, values in found.items():
        second = median(second for _, second in values)
        method, traced = name.removesuffix(" + trace"), name.endswith(" + trace")
        tau = "" if traced or name.startswith("generate") else f"{second:.2f}"
        share = f"{100 * second:.1f} %" if traced else ""
        partner = partners.get(method, "generate")
        ratio = "" if name.startswith("generate") else f"{speeds[name] / speeds[partner]:.2f}"
        print(f"{name:38}{tau:>6}{speeds[name]:>10.0f}{share:>11}{ratio:>7}  {partner if ratio else ''}")


def ours(family: Family, options: argparse.Namespace) -> list[tuple[str, Callable[[], tuple[float, float]]]]:
    sampling = Sampling(options.temperature)
    rows = []
    for method in options.methods:
        params = {"length": options.length} if method == "speculative_sampling" else {}
        for traced in (False, True):

            def run(method=method, params=params, traced=traced) -> tuple[float, float]:
                return timed(family, method, params, sampling, options.tokens, traced)

            rows.append((method + (" + trace" if traced else ""), run))
    return rows


def timed(family: Family, method: str, params: dict, sampling: Sampling, tokens: int, traced: bool) -> tuple[float, float]:
    """(tokens per second, tau), or with a trace (tokens per second, share of the time spent recording)."""
    spent = Stopwatch()
    started, count, steps = perf_counter(), 0, 0
    for seed, prompt in enumerate(PROMPTS):
        run = Run(family, method, params, prompt, sampling, seed=seed, max_tokens=tokens, record=traced)
        with spent.around(record, "recorded"):
            made: list[Step] = list(run)
        count += sum(len(step.tokens) for step in made)
        steps += len(made)
    seconds = perf_counter() - started
    return count / seconds, spent.seconds / seconds if traced else count / steps


class Stopwatch:
    """Adds up the time spent in functions of a module."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, module, *names: str) -> "Stopwatch":
        self._originals = [(module, name, getattr(module, name)) for name in names]
        for module, name, original in self._originals:
            setattr(module, name, self._timed(original))
        return self

    def _timed(self, original: Callable) -> Callable:
        def timed_call(*args, **kwargs):
            started = perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - started

        return timed_call

    def __enter__(self) -> None: ...

    def __exit__(self, *error) -> None:
        for module, name, original in self._originals:
            setattr(module, name, original)


def theirs(family: Family, options: argparse.Namespace) -> list[tuple[str, Callable[[], tuple[float, float]]]]:
    """`transformers` generate: plain, with the draft model as assistant at the same fixed draft length, with prompt lookup."""
    folders = opened_from(options.family, SHIPPED_TARGETS)[0], SHIPPED / SHIPPED_DRAFTS[options.family]
    target, assistant = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in folders
    )  # as everybody loads them
    assistant.generation_config.num_assistant_tokens = options.length
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0  # a fixed length, as ours
    return [
        ("generate", lambda: generate(target, family, options)),
        ("generate, assisted", lambda: generate(target, family, options, assistant_model=assistant)),
        ("generate, prompt lookup", lambda: generate(target, family, options, prompt_lookup_num_tokens=10)),
    ]


@torch.inference_mode()
def generate(target: PreTrainedModel, family: Family, options: argparse.Namespace, **how) -> tuple[float, float]:
    """(tokens per second, 0)."""
    sampled = {"do_sample": True, "temperature": options.temperature} if options.temperature else {"do_sample": False}
    started, count = perf_counter(), 0
    for prompt in PROMPTS:
        ids = family.tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = target.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.tokens, pad_token_id=0, **sampled, **how
        )
        count += out.shape[1] - ids.shape[1]
    return count / (perf_counter() - started), 0.0


if __name__ == "__main__":
    main()
