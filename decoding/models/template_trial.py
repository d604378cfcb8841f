"""A chat template on trial: parsed and filled in for a few chats, in the process of `decoding.models.probe` only.

The sandbox is set up as that of transformers, whose import would take longer than the trial.
"""

import json
from contextlib import suppress
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATS = (
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}],
)
LARGEST = 1_000_000  # number in a template


class Generation(Extension):
    """The tag `generation` of transformers, around what an assistant wrote: its content, as it stands."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def tojson(value: Any, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def try_template(text: str) -> None:
    """Use a template the way a run does; what it says against a chat is its right, what it does to the machine is not.

    Raises:
        ValueError: it computes what no chat needs.
        jinja2.TemplateSyntaxError: it is no template.
    """
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    sandbox = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", Generation], **options)
    sandbox.filters["tojson"] = tojson
    sandbox.globals |= {"raise_exception": refuse, "strftime_now": str}
    check(sandbox.parse(text))
    template = sandbox.from_string(text)
    for chat in CHATS:
        with suppress(jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError):
            template.render(messages=chat, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")


def check(parsed: nodes.Template) -> None:
    """Refuse by its program a template that need not end (ValueError)."""
    if next(parsed.find_all(nodes.Pow), None) is not None:
        raise ValueError("its chat template computes powers, which no chat needs and which can take for ever.")
    for constant in parsed.find_all(nodes.Const):
        if isinstance(constant.value, (int, float)) and abs(constant.value) > LARGEST:
            raise ValueError(f"its chat template has a number above {LARGEST:,}, which no chat needs.")
