"""Texts that the embedded target writes itself, stories and mathematics, for the datastore of the retrieval methods.

    python -m decoding.training.outputs --tokens 1e6

Plain sampling at temperature 1, a batch of texts from one opening at a time. Resumable: the same command goes on after the last
finished batch. The finished file is `decoding/embedded/outputs.npy`: uint16 tokens, the end token behind every text.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from decoding.models.family import load
from decoding.models.writing import batch

OUT = Path(__file__).parent.parent / "embedded" / "outputs.npy"
OPENINGS = (
    "Question:",
    "Once upon a time there was",
    "Question:",
    "One day,",
    "Question:",
    "Once upon a time, in a small",
    "Question:",
    "There was once a",
    "Question:",
    "Long ago there lived",
)


def main() -> None:
    options = parse()
    family = load("embedded", device=options.device)
    openings = [family.tokenizer(opening)["input_ids"] for opening in OPENINGS]
    end = family.tokenizer.eos_token_id
    options.work.parent.mkdir(parents=True, exist_ok=True)
    parts = read_back(options.work)
    with tqdm(total=int(options.tokens), initial=sum(map(len, parts)), desc="outputs", unit="token") as bar:
        while sum(map(len, parts)) < options.tokens:
            texts = batch(family.target, openings[len(parts) % len(openings)], seed=len(parts))
            parts.append(np.concatenate([np.append(without_start(text, end), end) for text in texts]).astype(np.uint16))
            append(options.work, parts[-1])
            bar.update(len(parts[-1]))
    np.save(options.out, np.concatenate(parts), allow_pickle=False)
    options.work.unlink()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=float, default=1e6, help="tokens to write")
    parser.add_argument("--work", type=Path, default=Path(".training/outputs.part"), help="file for what is not finished yet")
    parser.add_argument("--out", type=Path, default=OUT, help="the finished file")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def without_start(text: np.ndarray, start: int) -> np.ndarray:
    """A text without the token that stands in front of every prompt."""
    return text[1:] if len(text) and text[0] == start else text


def append(path: Path, tokens: np.ndarray) -> None:
    """One finished batch, behind its length."""
    with path.open("ab") as file:
        file.write(np.uint32(len(tokens)).tobytes() + tokens.tobytes())


def read_back(path: Path) -> list[np.ndarray]:
    """The finished batches of a run that was stopped; one that was cut off in the middle is dropped from the file."""
    parts: list[np.ndarray] = []
    if not path.exists():
        return parts
    data, place = path.read_bytes(), 0
    while place + 4 <= len(data):
        end = place + 4 + 2 * int(np.frombuffer(data, np.uint32, 1, place)[0])
        if end > len(data):
            break
        parts.append(np.frombuffer(data[place + 4 : end], np.uint16))
        place = end
    with path.open("r+b") as file:
        file.truncate(place)
    return parts


if __name__ == "__main__":
    main()
