"""Conversations for training heads and draft models of a chat model: user turns, and the answers that the model itself gives them.

    python -m decoding.training.conversations --family smollm2 --data DIR --out chat.jsonl

Of five batches two are asked what the model itself says in a user's place, behind the start of its own template (Xu et al. 2024,
"Magpie", https://arxiv.org/abs/2406.08464), and three what a corpus holds: its word problems, stories and Python functions. Half of
the answers are greedy, half drawn at temperature 1, since a drafter must foretell both. The rest of the tokens (`--own`) are the
corpus's own questions with its own answers. Resumable: the same command goes on after the last finished batch.
"""

import argparse
import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from decoding.models.family import Family, load
from decoding.models.target import Target
from decoding.models.writing import generated, pad_of, up_to_end
from decoding.training.corpus import Domain, read
from decoding.training.precision import quick_at_bfloat16

ROWS = 96  # conversations of a batch
QUESTION, ANSWER = 64, 192  # tokens of a turn at most
ASKED = 600  # characters of a question that is taken from a corpus at most
Asked = tuple[str, str]  # a user turn, and the answer that the corpus has for it


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    family = load(options.family, device=options.device)
    if not family.tokenizer.chat_template:
        raise SystemExit(f"The model {options.family!r} has no chat template; its heads are trained on plain text.")
    quickened(family.target)
    asked = questions(read(options.data))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    number, own, given = read_back(options.out)
    with tqdm(total=int(options.tokens), initial=own + given, desc="conversations", unit="token") as bar:
        while own + given < options.tokens:
            answers_itself = own < options.own * (own + given + 1)
            found = answered(family, asked, number) if answers_itself else read_out(asked, number)
            append(options.out, number, found, answers_itself)
            new = size(answer for _, answer in found)
            own, given, number = own + new * answers_itself, given + new * (not answers_itself), number + 1
            bar.update(new)


def quickened(target: Target) -> None:
    """In bfloat16 where the device is quick at it, with the weights as they lie in their file: quicker for many rows."""
    if quick_at_bfloat16(target.device):
        for values in target.model.parameters():
            values.data = values.data.to(torch.bfloat16).contiguous()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="smollm2", help="a chat model: smollm2, a folder or a Hub id")
    parser.add_argument("--data", type=Path, required=True, help="folder with the corpus (decoding.training.corpus)")
    parser.add_argument("--tokens", type=float, default=300e3, help="of answers, about")
    parser.add_argument("--own", type=float, default=0.5, help="share of them that the model answers itself")
    parser.add_argument("--out", type=Path, required=True, help="the file, one conversation a line")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


# -- what is asked -----------------------------------------------------------------------------------------------------


def questions(domains: Sequence[Domain]) -> dict[str, list[Asked]]:
    """What a corpus lets a user ask, by domain; of its training texts alone."""
    ways = {"stories": of_story, "mathematics": of_problem, "python": of_source}
    return {domain.name: [pair for text in domain.train for pair in ways[domain.name](text)] for domain in domains}


def of_story(text: str) -> Iterator[Asked]:
    """Its title, if it has one, or its beginning."""
    title, parted, body = text.partition("\n\n")
    if parted and len(title) < 80:
        yield f"Tell me the story of {title}.", body[:2000].strip()
    else:
        first = re.split(r"(?<=[.!?])\s", text, maxsplit=1)
        if len(first) == 2 and len(first[0]) < 200:
            yield f"Write a short story that begins with: {first[0]}", text[:2000].strip()


def of_problem(text: str) -> Iterator[Asked]:
    question, _, answer = text.removeprefix("Question: ").partition("\nAnswer: ")
    if len(question) <= ASKED:
        yield question, re.sub(r"<<.*?>>", "", answer).replace("#### ", "The answer is ")


def of_source(text: str) -> Iterator[Asked]:
    """Its documented functions; nothing of a file that is no Python of today."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (said := ast.get_docstring(node)):
            source = ast.get_source_segment(text, node) or ""
            wanted = said.split("\n\n")[0].replace("\n", " ")
            if len(wanted) <= ASKED and len(source) < 1500:
                yield f"Write a Python function `{node.name}`. {wanted}", f"```python\n{source}\n```"


# -- what is answered --------------------------------------------------------------------------------------------------


def answered(family: Family, asked: dict[str, list[Asked]], number: int) -> list[Asked]:
    """ROWS user turns with the model's answers; the same ones for the same number. What is empty is left out."""
    rng = np.random.default_rng(number)
    kinds: list[Callable[[], list[str]]] = [
        lambda: own_questions(family, number),
        lambda: turns_of(picked(asked["mathematics"], rng)),
        lambda: own_questions(family, number),
        lambda: turns_of(picked(asked["python"], rng)),
        lambda: turns_of(picked(asked["stories"], rng)),
    ]
    turns = kinds[number % len(kinds)]()
    prompts = [rendered(family, [{"role": "user", "content": turn}]) for turn in turns]
    answers = written(family.target, prompts, ANSWER, greedy=(number // len(kinds) + number) % 2 == 0, seed=number)
    texts = [family.tokenizer.decode(answer).strip() for answer in answers]
    return [(turn, text) for turn, text in zip(turns, texts, strict=True) if text]


def read_out(asked: dict[str, list[Asked]], number: int) -> list[Asked]:
    """Questions of all domains with the answers that the corpus has for them; the same ones for the same number."""
    rng = np.random.default_rng(number)
    return [pair for domain in asked.values() for pair in picked(domain, rng, ROWS // len(asked))]


def picked(asked: Sequence[Asked], rng: np.random.Generator, count: int = ROWS) -> list[Asked]:
    return [asked[i] for i in rng.integers(len(asked), size=count)]


def turns_of(pairs: Sequence[Asked]) -> list[str]:
    return [turn for turn, _ in pairs]


def own_questions(family: Family, number: int) -> list[str]:
    """What the model says in the place of the user: what stands between the markers of a user turn of its template."""
    mark = "DRAFTSCOPE"
    before, _, _ = str(template(family, [{"role": "user", "content": mark}])).partition(mark)
    start = family.tokenizer(before, add_special_tokens=False)["input_ids"]
    found = written(family.target, [start] * ROWS, QUESTION, greedy=False, seed=number)
    return [turn for tokens in found if (turn := family.tokenizer.decode(tokens, skip_special_tokens=True).strip())]


def template(family: Family, messages: Sequence[dict[str, str]], tokenize: bool = False):
    return family.tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=messages[-1]["role"] == "user", tokenize=tokenize, return_dict=False
    )


def rendered(family: Family, messages: Sequence[dict[str, str]]) -> list[int]:
    return list(template(family, messages, tokenize=True))


@torch.inference_mode()
def written(target: Target, prompts: Sequence[Sequence[int]], length: int, *, greedy: bool, seed: int) -> list[list[int]]:
    """What the target writes behind each prompt, to its end or `length` tokens; at temperature 1 or greedily."""
    torch.manual_seed(seed)
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_of(target))
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # to the right, so that all go on at the same place
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    sampling = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    fast = {"cache_implementation": "static", "disable_compile": True}  # no copy of the whole cache at every token
    out = generated(target, ids.to(target.device), mask=mask.to(target.device), max_new_tokens=length, **sampling, **fast)
    return [up_to_end(row[longest:], 0, target.ends).tolist() for row in out.cpu().numpy()]


# -- the file ----------------------------------------------------------------------------------------------------------


def append(path: Path, number: int, found: Sequence[Asked], own: bool) -> None:
    """A finished batch, in one write; its last line says so."""
    lines = [json.dumps({"messages": messages(*pair), "own": own}, ensure_ascii=False) for pair in found]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in [*lines, json.dumps({"finished": number})]))


def messages(turn: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": turn}, {"role": "assistant", "content": answer}]


def read_back(path: Path) -> tuple[int, int, int]:
    """The next batch of a run that was stopped, and about how many tokens it has of the model's own answers and of given ones; what
    was cut off in the middle is dropped from the file."""
    if not path.exists():
        return 0, 0, 0
    whole, _, behind = path.read_text("utf-8").rpartition('{"finished": ')
    last, _, _ = behind.partition("}")
    path.write_text(f'{whole}{{"finished": {last}}}\n' if whole else "", "utf-8")
    found = [json.loads(line) for line in whole.split("\n") if '"messages"' in line]
    own, given = (size(each["messages"][-1]["content"] for each in found if each["own"] == mine) for mine in (True, False))
    return int(last) + 1 if whole else 0, own, given


def size(texts: Iterable[str]) -> int:
    """About how many tokens these have."""
    return sum(map(len, texts)) // 4


if __name__ == "__main__":
    main()
