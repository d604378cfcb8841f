"""tau of every method on 24 fixed prompts or those of a file, at temperature 0 and 1, as a CSV file and a table.

    python -m decoding.runs.evaluate [--out evaluation] [--family embedded] [--draft FOLDER] [--methods plain,dyspec] [--tokens 64]
        [--prompts FILE [--most 80]] [--chat | --plain] [--stop TOKEN] [--ignore-end] [--cluster ADDRESS]

A model with a chat template is asked in chat form, turn by turn with its own answers between.
Resumable: a run that is in the CSV file is not made again. A run that breaks is told at the end and left out. tau and the shares
transfer between machines, milliseconds do not.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import cast

from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from decoding.methods import METHODS
from decoding.models.chat import Option, read_options
from decoding.models.ends import Stop, read_each, write_stops
from decoding.models.family import Family
from decoding.runs.failures import sentence
from decoding.runs.many import opened, spread_over
from decoding.runs.options import add_cluster, add_ends, add_form, add_prompts
from decoding.runs.orders import Known
from decoding.runs.prompts import MAX_PROMPTS, Prompt, read_prompts, spread
from decoding.runs.run import Place, begin, check_limits
from decoding.sample import Sampling
from decoding.trace import Step

PROMPTS = {
    "stories": (
        "Once upon a time there was a little",
        "A long time ago there lived a king who had three sons. The youngest",
        "Tom and his sister went to the park. They saw a big",
        "The old woman opened the door and said,",
        "In a deep forest there stood a small house, and in it lived a",
        "Lily had a doll. She loved the doll very much. One day",
        '"I am so hungry," said the wolf. "I have not eaten',
        "The princess looked into the well, and what she saw there was",
    ),
    "mathematics": (
        "Question: Anna has 12 apples. She gives 3 apples to each of her 2 friends. How many apples does she have left?\nAnswer:",
        "Question: A bus holds 40 people. How many people can ride on 6 full buses?\nAnswer:",
        "Question: Ben saves $15 every week for 8 weeks and then spends $50. How much money does he have?\nAnswer:",
        "Question: A book has 240 pages. Maria reads 30 pages a day. How many days does she need?\nAnswer:",
        "Question: There are 5 boxes with 24 pencils each. 18 pencils are broken. How many can be used?\nAnswer:",
        "Question: A farmer has 7 cows. Each cow gives 12 liters of milk a day. How much milk is that in a week?\nAnswer:",
        "Question: Sam runs 3 miles on Monday and twice as far on Tuesday. How many miles does he run in all?\nAnswer:",
        "Question: A shirt costs $20 and is sold with 25% off. How much do 4 shirts cost?\nAnswer:",
    ),
    "python": (
        "import os\nimport sys\n\n\ndef main():\n",
        'def read_lines(path):\n    """Return the lines of a file."""\n',
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n        ",
        "    def __repr__(self):\n        return ",
        'def parse_args(argv=None):\n    parser = argparse.ArgumentParser(description="',
        "class Error(Exception):\n    ",
        "    for key, value in self._data.items():\n        if ",
        "    try:\n        import ssl\n    except ImportError:\n        ",
    ),
}
CHAT_PROMPTS = {
    "questions": (
        "Write a haiku about rain.",
        "Why is the sky blue? Explain it to a child.",
        "What should I see in Paris in two days?",
        "Tell me a short story about a dog that is afraid of thunder.",
        "How do I learn to play the guitar?",
        "Write a friendly email that asks a colleague to move our meeting to Friday.",
        "What is the difference between a virus and a bacterium?",
        "Give me three reasons to get up early.",
    ),
    "mathematics": (
        "Anna has 12 apples. She gives 3 apples to each of her 2 friends. How many apples does she have left?",
        "A bus holds 40 people. How many people can ride on 6 full buses?",
        "Ben saves $15 every week for 8 weeks and then spends $50. How much money does he have?",
        "A book has 240 pages. Maria reads 30 pages a day. How many days does she need?",
        "There are 5 boxes with 24 pencils each. 18 pencils are broken. How many can be used?",
        "A farmer has 7 cows. Each cow gives 12 liters of milk a day. How much milk is that in a week?",
        "Sam runs 3 miles on Monday and twice as far on Tuesday. How many miles does he run in all?",
        "A shirt costs $20 and is sold with 25% off. How much do 4 shirts cost?",
    ),
    "code": (
        "Write a Python function that reverses a string.",
        "Write a Python function that says whether a number is prime.",
        "Write a Python class for a stack with push, pop and peek.",
        "Write a Python function that counts the words of a text file.",
        "Write a Python function that merges two sorted lists.",
        "Write a Python program that prints the first 20 Fibonacci numbers.",
        "Write a SQL query that finds the ten customers with the most orders.",
        "Write a regular expression that matches an email address, and explain it.",
    ),
}
TEMPERATURES = (0.0, 1.0)
Key = tuple[str, float, str, int]  # of a run: method, temperature, domain, number of the prompt

Prompts = Mapping[str, Sequence[Prompt]]  # domain -> its prompts


@dataclass(frozen=True)
class Result:
    """One run. Everything is a sum over its steps, so that rows can be added up."""

    method: str
    temperature: float
    domain: str
    prompt: int  # number within the domain
    tokens: int  # committed
    target_calls: int
    drafted: int  # nodes
    accepted: int
    draft_calls: int
    propose_ms: float
    total_ms: float

    @property
    def key(self) -> Key:
        return self.method, self.temperature, self.domain, self.prompt


@dataclass(frozen=True)
class Ends:
    """Where runs end beside their limit."""

    stop: tuple[Stop, ...] = ()
    ignored: bool = False  # the end of the text

    def named(self, prompts: Prompts) -> Prompts:
        """The domains under names of their own, if runs end elsewhere than texts do: they are others."""
        mark = " past the end" * self.ignored + (f" up to {write_stops(self.stop)}".replace("\n", " or ") if self.stop else "")
        return {f"{domain}{mark}": texts for domain, texts in prompts.items()}


USUAL = Ends()


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    rows = options.out / "evaluation.csv"
    try:
        check_limits(options.tokens, 0)
        options.out.mkdir(parents=True, exist_ok=True)
        check_ours(rows)
        disable_progress_bar()
        ends = Ends(read_each(options.stop), options.ignore_end)
        places, known = opened((options.family, options.draft, "auto", "auto"), options.methods, ends.stop, options.cluster)
        methods = served(options.methods, known)
        chat = known.chats if options.chat is None else options.chat
        if chat and not known.chats:
            raise ValueError(f"The family {known.name} has no chat template; leave out --chat.")
        prompts = ends.named(chosen(options.prompts, options.most, chat))
        template = read_options(options.template)
        check_template(template, chat)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    broken = evaluate(places, methods, options.tokens, rows, prompts, chat, template, ends)
    sizes = {key: known.parameters[key] for key in methods}
    text = table([row for row in read(rows) if row.method in methods], sizes)
    (options.out / "evaluation.md").write_text(text, "utf-8")
    print(text)
    for line in told(broken):
        print(line, file=sys.stderr)


def told(broken: Mapping[Key, str], most: int = 10) -> Iterator[str]:
    """What is to be said of runs that broke: how many, and why the first ones did."""
    if broken:
        yield f"Without a result: {len(broken):,} {'run' if len(broken) == 1 else 'runs'}, which the next call tries again."
    for (method, temperature, domain, number), why in list(broken.items())[:most]:
        yield f"  {method}, T = {temperature:g}, {domain} {number + 1}: {why}"
    if len(broken) > most:
        yield f"  and {len(broken) - most:,} more"


def fixed(chat: bool) -> Prompts:
    """The prompts of this file; in chat form their domains have names of their own, for the runs are others."""
    if chat:
        return {f"chat: {domain}": [Prompt(text, domain) for text in texts] for domain, texts in CHAT_PROMPTS.items()}
    return {domain: [Prompt(text, domain) for text in texts] for domain, texts in PROMPTS.items()}


def chosen(file: Path | None, most: int, chat: bool) -> Prompts:
    """The prompts of a file, or the fixed ones without one; ValueError if only some of those are asked for."""
    if file is not None:
        return of_file(file, most, chat)
    if most:
        raise ValueError(f"--most {most:,} takes prompts of a file, and none is given: name one with --prompts.")
    return fixed(chat)


def check_template(options: Mapping[str, Option], chat: bool) -> None:
    """Refuse options of a template that is not used (ValueError)."""
    if options and not chat:
        raise ValueError("Only a chat has template options: --template needs a model with a chat template, and no --plain.")


def of_file(file: Path, most: int, chat: bool) -> Prompts:
    """At most so many prompts of a file, from all its domains; ValueError for what cannot be read."""
    if not 0 <= most <= MAX_PROMPTS:
        raise ValueError(f"At most 0 (all) to {MAX_PROMPTS:,} prompts can be taken; it is {most:,}.")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ValueError(f"The prompts in {str(file)!r} cannot be read: {error.strerror}.") from error
    found: dict[str, list[Prompt]] = {}
    for prompt in spread(read_prompts(data, file.name), most):
        found.setdefault(f"chat: {prompt.domain}" if chat else prompt.domain, []).append(prompt)
    more = sum(len(prompt.questions) > 1 for prompts in found.values() for prompt in prompts)
    if more and not chat:
        print(f"Left out: the further turns of {more:,} prompts; they need a model with a chat template.", file=sys.stderr)
    return found


def served(keys: Iterable[str], family: Known) -> list[str]:
    """The methods that the family can serve; of the others it is said why not. ValueError if none is left."""
    reasons = {key: family.missing[key] for key in keys}
    for reason in filter(None, reasons.values()):
        print(f"Left out: {reason}", file=sys.stderr)
    methods = [key for key, reason in reasons.items() if not reason]
    if not methods:
        raise ValueError(f"None of these methods can run with the family {family.name}.")
    return methods


def check_ours(rows: Path) -> None:
    """Refuse a file that is there and holds something else (ValueError)."""
    names = ",".join(spec.name for spec in fields(Result))
    if rows.exists() and rows.stat().st_size and rows.open(encoding="utf-8", errors="replace").readline().strip() != names:
        raise ValueError(f"{str(rows)!r} is not a table of this program; name another folder with --out.")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for evaluation.csv and evaluation.md")
    parser.add_argument("--family", default="embedded", help="embedded, a folder or a Hub id")
    parser.add_argument("--draft", help="draft model or published head; left out: what is shipped for the family, if anything")
    add_prompts(parser)
    add_form(parser)
    add_ends(parser)
    add_cluster(parser)
    parser.add_argument("--methods", type=known, default=list(METHODS), help="keys, parted by commas; all of them if left out")
    parser.add_argument("--tokens", type=int, default=64, help="of every run")
    return parser.parse_args(arguments)


def known(text: str) -> list[str]:
    keys = text.split(",")
    if unknown := [key for key in keys if key not in METHODS]:
        raise argparse.ArgumentTypeError(f"There is no method {unknown[0]!r}; there are {', '.join(METHODS)}.")
    return keys


def evaluate(
    places: Family | Sequence[Family | Place],
    methods: Iterable[str],
    tokens: int,
    rows: Path,
    prompts: Prompts | None = None,
    chat: bool = False,
    template: Mapping[str, Option] | None = None,
    ends: Ends = USUAL,
) -> dict[Key, str]:
    """Make every run that `rows` does not have, and append it there; why those broke that did.

    Args:
        places: the family; on several machines, as many runs are made at the same time.
    """
    broken: dict[Key, str] = {}
    prompts = fixed(chat) if prompts is None else prompts
    done = {row.key for row in read(rows)}
    wanted = [  # the methods one after the other on every prompt: a machine that gets slower does so for all of them
        (method, temperature, domain, number)
        for domain, texts in prompts.items()
        for number in range(len(texts))
        for temperature in TEMPERATURES
        for method in methods
    ]
    left = [key for key in wanted if key not in done]

    def outcome(place: Family | Place, key: Key) -> tuple[Key, Result | str]:
        try:
            return key, measured(place, key, prompts[key[2]][key[3]], tokens, template or {} if chat else None, ends)
        except Exception as error:  # of one run; the others go on
            return key, sentence(error)

    for key, found in tqdm(spread_over(places, left, outcome), desc="runs", total=len(left), mininterval=2):
        if isinstance(found, Result):
            append(rows, found)
        else:
            broken[key] = found
    return broken


def measured(
    family: Family | Place, key: Key, prompt: Prompt, tokens: int, template: Mapping[str, Option] | None, ends: Ends = USUAL
) -> Result:
    """One prompt, all its turns if it is asked in chat form.

    Args:
        template: options of the chat template; None: the model goes on from the prompt's text.
    """
    method, temperature, domain, number = key
    steps: list[Step] = []
    answers: list[str] = []
    for _ in prompt.questions if template is not None else (prompt.text,):
        asked = prompt.text if template is None else prompt.messages(answers)
        options = {"sampling": Sampling(temperature), "seed": number, "max_tokens": tokens, "template_options": template}
        run = begin(family, method, prompt=asked, **options, stop=ends.stop, ignore_end=ends.ignored)
        steps += run
        answers.append(run.trace.answer)
    return Result(
        method,
        temperature,
        domain,
        number,
        tokens=sum(len(step.tokens) for step in steps),
        target_calls=len(steps),
        drafted=sum(len(step.nodes) for step in steps),
        accepted=sum(len(step.path) for step in steps),
        draft_calls=sum(step.draft_calls for step in steps),
        propose_ms=round(sum(step.times.propose for step in steps), 3),
        total_ms=round(sum(step.times.total for step in steps), 3),
    )


def append(rows: Path, result: Result) -> None:
    """One line more; a killed process leaves at most half a line, which `read` passes over."""
    fresh = not rows.exists()
    with rows.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow([spec.name for spec in fields(Result)])
        writer.writerow([getattr(result, spec.name) for spec in fields(Result)])


def read(rows: Path) -> list[Result]:
    return list(results(rows)) if rows.exists() else []


def results(rows: Path) -> Iterator[Result]:
    with rows.open(newline="", encoding="utf-8") as file:
        for line in csv.reader(file):
            if len(line) == len(fields(Result)) and line[0] in METHODS:
                yield Result(*(cast(type, spec.type)(text) for spec, text in zip(fields(Result), line, strict=True)))


def table(found: list[Result], sizes: Mapping[str, int]) -> str:
    """Markdown, one line per method; tau is tokens per target call over all prompts of a kind.

    Args:
        sizes: method -> trained parameters beside the target's.
    """
    domains = dict.fromkeys(row.domain for row in found)
    plain = {row.key[1:]: row for row in found if row.method == "plain"}
    head = [f"tau, T = {temperature:g}" for temperature in TEMPERATURES] + [f"{domain}, T = 0" for domain in domains]
    head += ["measured, × plain", "modelled, × plain"] * bool(plain)
    head += ["drafted per step", "wasted", "drafter calls per step", "ms drafting per step", "trained parameters", "MB"]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for method in (key for key in sizes if any(row.method == key for row in found)):
        rows = [row for row in found if row.method == method]
        cells = [tau(r for r in rows if r.temperature == temperature) for temperature in TEMPERATURES]
        cells += [tau(r for r in rows if r.temperature == 0 and r.domain == domain) for domain in domains]
        cells += speed_ups(rows, plain) if plain else []
        cells += [*per_step(rows), *size(sizes[method])]
        lines.append(f"| {METHODS[method].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tau(rows: Iterable[Result]) -> str:
    rows = list(rows)
    calls = sum(row.target_calls for row in rows)
    return f"{sum(row.tokens for row in rows) / calls:.2f}" if calls else "–"


def speed_ups(rows: list[Result], plain: Mapping[tuple[float, str, int], Result]) -> list[str]:
    """Over plain decoding on the same prompt, medians: measured; and modelled, where a target call takes what it takes in plain
    decoding however many tokens it reads (a device bound by memory), and drafting what it took here."""
    pairs = [(row, plain[row.key[1:]]) for row in rows if row.key[1:] in plain]
    pairs = [(row, base) for row, base in pairs if row.tokens and base.tokens and row.total_ms and base.total_ms]
    if not pairs:
        return ["–", "–"]
    gained = [(base.total_ms / base.tokens) / (row.total_ms / row.tokens) for row, base in pairs]
    calls = [(row.target_calls * (base.total_ms - base.propose_ms) / base.target_calls, row, base) for row, base in pairs]
    modelled = [(base.total_ms / base.tokens) / ((reading + row.propose_ms) / row.tokens) for reading, row, base in calls]
    return [f"{median(gained):.2f}", f"{median(modelled):.2f}"]


def per_step(rows: list[Result]) -> list[str]:
    """Drafted tokens, the share of them that was not accepted, drafter calls, and milliseconds in the drafter."""
    calls, drafted = sum(row.target_calls for row in rows), sum(row.drafted for row in rows)
    wasted = f"{100 * (1 - sum(row.accepted for row in rows) / drafted):.0f} %" if drafted else "–"
    draft_calls, ms = sum(row.draft_calls for row in rows), sum(row.propose_ms for row in rows)
    return [f"{drafted / calls:.1f}", wasted, f"{draft_calls / calls:.1f}", f"{ms / calls:.1f}"]


def size(count: int) -> list[str]:
    """Parameters, and megabytes in float16.

    >>> size(921_600)
    ['921,600', '1.8']
    """
    return [f"{count:,}", f"{2e-6 * count:.1f}"] if count else ["–", "–"]


if __name__ == "__main__":
    main()
