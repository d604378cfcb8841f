"""Benchmark, not a test: what a GPU allows, and what the loop makes of it. Prepared for whoever has one; under five minutes.

    python -m tests.bench.gpu [--out docs/benchmarks-gpu.md] [--models 1b,8b] [--seconds 270] [--dry]

Llama models with random weights are built on the device in bfloat16, with a draft model beside them: a pass is timed over 1 to 129
rows against the time that reading the weights takes at the measured speed of the card's memory, by the forward of transformers, by
the short one, with CUDA graphs, and by `torch.compile`; so is one layer of an EAGLE head; then plain decoding against `generate`,
speculative sampling against assisted generation, a run with the trace and without, and how often a step waits for the device; then
the tests that want a GPU are run. With random weights the draft is never right: tau is 1, and a run costs what its calls cost,
which is what is measured here. What would not end within `--seconds` is left out, with a line that says so. Without a GPU it says
so and ends; `--dry` goes through all of it with tiny models on a CPU, whose numbers mean nothing.
"""

import argparse
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from decoding.draft import Draft
from decoding.methods import METHODS
from decoding.models.attention import Block, Sizes
from decoding.models.family import Family
from decoding.models.graphs import Capture, CudaGraphs, Graphs, uncaptured
from decoding.models.plain_forward import PlainForward
from decoding.models.target import Target
from decoding.sample import Sampling
from tests.toys import run_steps

NODES = (0, 1, 8, 16, 32, 64, 128)  # drafted: rows less one
PROMPT, TOKENS, LENGTH = 512, 64, 5  # tokens read before, tokens written, tokens of a draft
ROUNDS = 20
EAGLE_ROWS = 8
COMPILE_SECONDS = 90  # that it may take
VOCAB = 128_256
SHAPES = {  # hidden size, layers, heads, key-value heads, width of the MLP
    "1b": (2048, 16, 32, 8, 8192),
    "8b": (4096, 32, 32, 8, 14336),
    "0.5b": (896, 24, 14, 2, 4864),
}
TINY, TINY_VOCAB = (64, 2, 4, 2, 128), 512
DRAFT = "0.5b"


@dataclass(frozen=True)
class Machine:
    """Where everything runs, and how fast its memory is."""

    device: torch.device
    dtype: torch.dtype
    bandwidth: float  # bytes a second that a copy moves, both ways counted
    dry: bool = False

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ms(self, once: Callable[[], object], rounds: int = ROUNDS) -> float:
        """Median milliseconds of `once`, after it was done three times."""
        for _ in range(3):
            once()
        found = []
        for _ in range(rounds):
            self.wait()
            started = perf_counter()
            once()
            self.wait()
            found.append(1000 * (perf_counter() - started))
        return median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks-gpu.md"))
    parser.add_argument("--models", default="1b,8b", help=f"of {', '.join(SHAPES)}, parted by commas")
    parser.add_argument("--seconds", type=float, default=270.0, help="when nothing new is begun any more")
    parser.add_argument("--dry", action="store_true", help="tiny models on a CPU: whether the script works")
    options = parser.parse_args()
    names = options.models.split(",")
    if wrong := [name for name in names if name not in SHAPES]:
        sys.exit(f"There is no model {wrong[0]!r}; there are {', '.join(SHAPES)}.")
    if not torch.cuda.is_available() and not options.dry:
        sys.exit("There is no GPU on this machine: nothing was measured and nothing written.")
    machine = found_machine(options.dry)
    lines = ["# On a GPU", "", *about(machine)]
    draft = model(DRAFT, machine)
    end = perf_counter() + options.seconds
    for name in names:
        lines += section(name, machine, draft, end)
        if not options.dry:
            torch.cuda.empty_cache()
    text = "\n".join(lines) + "\n"
    print(text)
    if not options.dry:
        options.out.write_text(text, "utf-8")
        left = max(30.0, end - perf_counter())
        try:
            done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu"], check=False, timeout=left)
        except subprocess.TimeoutExpired:
            sys.exit("The tests that want a GPU did not end in time; run them by pytest -m gpu.")
        sys.exit(done.returncode)


def found_machine(dry: bool) -> Machine:
    if dry:
        torch.set_num_threads(1)
        return Machine(torch.device("cpu"), torch.float32, copy_speed(torch.device("cpu"), 2**24), dry)
    torch.manual_seed(0)
    device = torch.device("cuda")
    return Machine(device, torch.bfloat16, copy_speed(device, 2**30))


def copy_speed(device: torch.device, size: int) -> float:
    """Bytes a second that a copy within the device's memory moves, read and written."""
    source, place = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    here = Machine(device, torch.uint8, 0.0)
    return 2 * size / (here.ms(lambda: place.copy_(source)) / 1000)


def about(machine: Machine) -> list[str]:
    card = torch.cuda.get_device_name() if machine.device.type == "cuda" else f"{platform.machine()}, a dry run"
    return [
        f"{card}, {machine.bandwidth / 1e9:,.0f} GB/s by a copy within its memory, torch {torch.__version__}, "
        f"{str(machine.dtype).removeprefix('torch.')}, random weights. `python -m tests.bench.gpu` makes this page.",
        "",
    ]


@torch.no_grad()
def model(name: str, machine: Machine) -> PreTrainedModel:
    """A Llama with random weights, made on the device."""
    hidden, layers, heads, kv_heads, mlp = TINY if machine.dry else SHAPES[name]
    config = LlamaConfig(
        vocab_size=TINY_VOCAB if machine.dry else VOCAB, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=mlp, max_position_embeddings=4096, tie_word_embeddings=name != "8b",
        attn_implementation="sdpa", bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(machine.dtype)
    try:
        with machine.device:
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def section(name: str, machine: Machine, draft: PreTrainedModel, end: float) -> list[str]:
    """All tables of one target; what would begin behind `end` is left out."""
    big = model(name, machine)
    vocab = big.config.vocab_size
    weights = sum(values.numel() * values.element_size() for values in big.parameters())
    limit = 1000 * weights / machine.bandwidth
    lines = [f"## {name}", "", f"{weights / 1e9:.1f} GB of weights: a pass cannot take less than {limit:.2f} ms.", ""]
    slow = Target(big, vocab, 4096)
    eager, small = (shortened_to(Target(one, vocab, 4096), None) for one in (big, draft))
    fixed, fixed_small = (shortened_to(one, capture_of(machine)) for one in (eager, small))
    ways = {"transformers": slow, "short forward": eager, "graphs": fixed}
    prompt = torch.randint(0, vocab, (PROMPT,), generator=torch.Generator().manual_seed(1)).tolist()
    for about, target, assistant in (("graphs", fixed, fixed_small), ("the short forward alone", eager, small)):
        if perf_counter() < end:
            head = (f"with {about}", "tokens a second", "× transformers", "waits for the device per step")
            lines += table(head, runs(target, assistant, machine, prompt))
        else:
            lines += [f"Runs with {about}: no time was left.", ""]
    if perf_counter() < end:
        lines += table(("rows", *(f"ms, {way}" for way in ways), "share of the limit", "× one row"), passes(ways, machine, limit))
        lines += eagle_layer(eager, machine)
    if perf_counter() < end - COMPILE_SECONDS:  # last: what it compiles takes long, and nothing else may wait for it
        lines += compiled(slow, machine, limit)
    else:
        lines += ["`torch.compile`: no time was left.", ""]
    if fixed.graphs is not None and fixed.graphs.problem:
        lines += [f"Graphs could not be captured: {fixed.graphs.problem}.", ""]
    return lines


def capture_of(machine: Machine) -> Capture:
    return CudaGraphs() if machine.device.type == "cuda" else uncaptured


def shortened_to(target: Target, capture: Capture | None) -> Target:
    """The same model read by the short forward, and over fixed shapes if there is something to capture them."""
    plain = target.plain or PlainForward(target.model)
    return replace(target, plain=plain, graphs=None if capture is None else Graphs(plain, capture))


def passes(ways: Mapping[str, Target], machine: Machine, limit: float) -> Iterator[tuple[str, ...]]:
    """One line per number of rows, behind a prompt; the share and the ratio are those of the last way."""
    first = 0.0
    for nodes in NODES:
        draft = tree(nodes)
        found = [machine.ms(reading(target, draft)) for target in ways.values()]
        first = first or found[-1]
        yield str(nodes + 1), *(f"{ms:.2f}" for ms in found), f"{100 * limit / found[-1]:.0f} %", f"{found[-1] / first:.2f}"


def tree(nodes: int) -> Draft:
    return Draft((5,) * nodes, tuple((node - 1) // 2 for node in range(nodes)), source=("bench",) * nodes)


def compiled(target: Target, machine: Machine, limit: float) -> list[str]:
    """One row by `torch.compile`; a sentence where it cannot."""
    try:
        ms = machine.ms(reading(Target(torch.compile(target.model), target.vocab, target.context), tree(0)))
    except Exception as error:  # whatever it lacks on this machine, the other numbers stand
        return [f"`torch.compile` cannot: {type(error).__name__}.", ""]
    return [f"`torch.compile` takes {ms:.2f} ms for one row, {100 * limit / ms:.0f} % of the limit.", ""]


@torch.inference_mode()
def eagle_layer(target: Target, machine: Machine) -> list[str]:
    """One layer as wide as the target's behind a prompt, as an EAGLE head runs it again and again to draft."""
    with machine.device:
        layer = Block(Sizes.of(target).config).to(machine.dtype).eval()
    rows = torch.zeros(1, PROMPT, target.model.config.hidden_size, dtype=machine.dtype, device=machine.device)
    keys, values = layer.keys_values(rows, torch.arange(PROMPT, device=machine.device)[None])
    positions = torch.full((1, EAGLE_ROWS), PROMPT, device=machine.device)
    visible = torch.ones(EAGLE_ROWS, PROMPT, dtype=torch.bool, device=machine.device)
    ms = machine.ms(lambda: target.score(layer(rows[:, :EAGLE_ROWS], positions, keys, values, visible)[0]))
    return [f"One level of {EAGLE_ROWS} nodes of an EAGLE head, scored, takes {ms:.2f} ms.", ""]


def reading(target: Target, draft: Draft) -> Callable[[], object]:
    """Reads the draft again and again, behind the same prompt."""
    tokens = [1] * PROMPT
    cache = target.new_cache()
    target.extend(cache, tokens[:-1])

    def once() -> None:
        target.read(cache, tokens, draft, Sampling(0), ())
        cache.keep([])

    return once


def runs(target: Target, small: Target, machine: Machine, prompt: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Plain and speculative decoding beside what transformers does, in turns, and both with the trace."""
    family = Family("random", None, target, small)  # type: ignore[arg-type]  # nothing here asks the tokenizer
    rows: dict[str, Callable[[], object]] = {
        "generate": lambda: generated(target, prompt),
        "plain": lambda: ours(family, "plain", prompt, False),
        "plain, recorded": lambda: ours(family, "plain", prompt, True),
        "assisted generation": lambda: generated(target, prompt, small),
        "speculative sampling": lambda: ours(family, "speculative_sampling", prompt, False, length=LENGTH),
        "speculative sampling, recorded": lambda: ours(family, "speculative_sampling", prompt, True, length=LENGTH),
    }
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(3):
        for name, run in rows.items():
            found[name].append(machine.ms(run, rounds=1))
    ms = {name: median(values) for name, values in found.items()}
    for name in rows:
        partner = "generate" if "plain" in name else "assisted generation" if "speculative" in name else ""
        ratio = f"{ms[partner] / ms[name]:.2f}" if partner else ""
        known = partner and machine.device.type == "cuda"
        yield name, f"{1000 * TOKENS / ms[name]:.1f}", ratio, f"{waits(rows[name]):.1f}" if known else "–"


def ours(family: Family, key: str, prompt: Sequence[int], recorded: bool, **params) -> list:
    assert key in METHODS
    return run_steps(family, key, prompt, sampling=Sampling(0), max_tokens=TOKENS, recorded=recorded, **params)


@torch.inference_mode()
def generated(target: Target, prompt: Sequence[int], assistant: Target | None = None) -> object:
    ids = target.ids(prompt)[None]
    how = {}
    if assistant is not None:
        settings = assistant.model.generation_config
        settings.num_assistant_tokens, settings.num_assistant_tokens_schedule = LENGTH, "constant"
        settings.assistant_confidence_threshold = 0.0
        how = {"assistant_model": assistant.model}
    return target.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0, **how
    )


def waits(run: Callable[[], object]) -> float:
    """How often a step makes the host wait for the GPU, as torch sees it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            steps = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in seen) / max(1, len(steps))  # type: ignore[arg-type]


def table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


if __name__ == "__main__":
    main()
