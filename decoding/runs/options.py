"""Options that several programs of the command line have. Nothing heavy is imported: `--help` must not wait for torch."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decoding.method import Method

SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def add_prompts(made: argparse.ArgumentParser) -> None:
    made.add_argument("--prompts", type=Path, metavar="FILE", help="text, CSV, JSON or JSONL; 24 fixed prompts if left out")
    made.add_argument("--most", type=int, default=0, help="prompts of the file to take, from all its categories; 0 takes all")


def add_form(made: argparse.ArgumentParser) -> None:
    form = made.add_mutually_exclusive_group()
    form.add_argument("--chat", action="store_true", default=None, help="ask in chat form, as is usual with a chat template")
    form.add_argument("--plain", dest="chat", action="store_false", help="let the model go on from the text of the prompt")
    made.add_argument("--template", default="", metavar="NAME=VALUE,...", help="options of the chat template")


def add_ends(made: argparse.ArgumentParser) -> None:
    made.add_argument("--stop", action="append", default=[], metavar="TOKEN", help="end behind this token too: a text that is one "
                      "token, with \\n, \\t and \\s for line break, tab and space, or #7 for token 7; may be repeated")  # fmt: skip
    made.add_argument("--ignore-end", action="store_true", help="go on behind the end of the text")


def add_family(made: argparse.ArgumentParser) -> None:
    made.add_argument("--draft", help="embedded, a folder or a Hub id; left out: what is shipped for the target, if anything")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, or auto-map: spread over all GPUs (auto)")
    made.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (auto)")


def add_cluster(made: argparse.ArgumentParser) -> None:
    where = "on the machines that Ray joins there: auto, local, HOST:PORT or ray://HOST:PORT"
    made.add_argument("--cluster", default="", metavar="ADDRESS", help=where)


def values_of(method: "Method", texts: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE -> parameters of the kinds that the method has; ValueError for what is no such pair."""
    defaults = {spec.name: spec.default for spec in method.params.__dataclass_fields__.values()}
    values: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"A parameter is given as NAME=VALUE; it is {text!r}.")
        values[name] = value_of(name, value, type(defaults.get(name, "")))
    return values


def value_of(name: str, text: str, kind: type) -> Any:
    """A value of that kind; what is no such value is refused.

    >>> value_of("length", "5", int), value_of("adaptive", "off", bool)
    (5, False)
    """
    try:
        return SWITCH[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"The parameter {name} must be of kind {kind.__name__}; it is {text!r}.") from None
