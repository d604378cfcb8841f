"""The model card of the embedded family, written from measured figures."""

from pathlib import Path

KEPT = "<!-- Written by hand from here on: -->\n"


def write_card(path: Path, figures: dict) -> None:
    """Write the card; what stands behind the mark in an older one is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, mark, rest = (path.read_text("utf-8") if path.exists() else "").partition(KEPT)
    path.write_text(card(figures) + mark + rest, "utf-8")


def card(figures: dict) -> str:
    rows = "\n".join(
        f"| {name} | {figures['target_bits'][name]:.3f} | {figures['draft_bits'][name]:.3f} | {figures['overlap'][name]:.3f} |"
        for name in figures["target_bits"]
    )
    return f"""# The embedded family

A tokenizer, a target and a draft model that are small enough to ship with the app and good enough to show speculative
decoding on real text. Made for teaching and for tests; not for answering questions.

| | architecture | parameters | tokens seen |
|---|---|---|---|
| `target/` | Llama, 12 layers, hidden 256, 4 heads, SwiGLU 688, tied embeddings, context 1,024 | {figures["target_parameters"]:,} | {figures["target_tokens"]:,} |
| `draft/` | Llama, 2 layers, hidden 128, 2 heads, SwiGLU 344, tied embeddings, context 1,024 | {figures["draft_parameters"]:,} | {figures["draft_tokens"]:,} |

Tokenizer: byte-level BPE, 4,096 entries, digits single, every text behind one `<|endoftext|>`. Weights: float16, safetensors.

## Held-out text

Cross-entropy in bits per byte (windows of 1,024 tokens without overlap), and the overlap sum_v min(p, q) of target and
draft at temperature 1, which is the chance that a drafted token is accepted.

| domain | target, bits per byte | draft, bits per byte | overlap |
|---|---|---|---|
{rows}

## Data

{figures["distinct_tokens"]:,} distinct training tokens, mixed 40 / 30 / 30.

| domain | source | licence | held out |
|---|---|---|---|
| stories | stories of FairytaleQA (Xu et al., ACL 2022), from Project Gutenberg books in the public domain; a slice of TinyStories (Eldan and Li 2023) | Apache-2.0; CDLA-Sharing-1.0 | the validation and test stories of FairytaleQA |
| mathematics | GSM8K (Cobbe et al. 2021), as `Question: …` and `Answer: …` | MIT | the test split |
| python | the standard library of Python 3.11, without its tests | PSF-2.0 | every 20th file |

## Training

The target by next-token cross-entropy, in windows of 256 and for the last fifth of 1,024. The draft model by the target's
distribution on the same text, first KL(p || q), then the chance of a rejection, 1 - sum_v min(p, q). Muon for the matrices, AdamW
for embeddings and norms, batches of 8,192 tokens. The last command, made on {figures["date"]}:

    python -m decoding.training.family --corpus DIR {figures["options"]}

`--go-on` starts from the weights that are there; the table above counts the tokens of all commands. The shipped family was made in two: the
first with 22.1 M tokens for the target and 22.0 M for the draft model (KL on whole distributions, in windows as the target's), the
second as above (the 64 most probable tokens of each distribution, windows of 1,024).
"""


HEADS = """
## Heads

Small layers that read hidden states of these models; each was measured on held-out text.

| folder | what it is | held out | made by |
|---|---|---|---|
"""


def note_head(path: Path, key: str, what: str, figures: str, command: str) -> None:
    """Put the line of a head into the model card at `path`, in place of an older one."""
    before = path.read_text("utf-8") if path.exists() else "# A family\n"
    if HEADS not in before:
        before = before.rstrip("\n") + "\n" + HEADS
    start = f"| `heads/{key}/` |"
    above, below = before.split(HEADS)
    lines = [line for line in below.splitlines() if not line.startswith(start)]
    rows = [line for line in lines if line.startswith("| `heads/")]  # other sections may hold tables too
    rest = "\n".join(line for line in lines if line not in rows)
    rows.append(f"{start} {what} | {figures} | `{command}` |")
    path.write_text(f"{above}{HEADS}" + "\n".join(sorted(rows)) + "\n" + rest, "utf-8")
