"""The sandbox of chat templates, and a template filled in in it, in a process of its own (`decoding.models.apart`).

    python -m decoding.models.template_sandbox [SECONDS] < JSON

It is set up as that of transformers, whose import would take longer than the rendering; `tests/decoding/test_templates.py` holds
both against each other.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from decoding.models.apart import RENDERING, done, fail, limited


class Generation(Extension):
    """The tag `generation` of transformers, around what an assistant wrote: its content, as it stands."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("content"), [], [], body).set_lineno(line)

    def content(self, caller: Any) -> str:
        return caller()


class Dict:
    """`dict` of a template: no class, so that nothing can be reached from it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class OpenNamespace(Namespace):
    """`namespace` of a template: no name in it begins with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        check_name(name)
        super().__setitem__(name, value)


def check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"Chat templates cannot store underscore-prefixed attributes on a namespace, but got {name!r}. "
            "Please rename the attribute."
        )


def refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def tojson(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def now(format: str) -> str:
    return datetime.now().strftime(format)


def sandbox() -> ImmutableSandboxedEnvironment:
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    made = ImmutableSandboxedEnvironment(extensions=[Generation, "jinja2.ext.loopcontrols"], **options)
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": refuse, "strftime_now": now, "dict": Dict(), "namespace": OpenNamespace}
    return made


def parts(template: str, values: dict[str, Any]) -> Iterator[str]:
    """What a template writes, part by part."""
    return sandbox().from_string(template).generate(tools=None, documents=None, **values)


# -- in the process ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Read {"template", "values", "most": characters} and put out {"text"}, or {"refused"} with what the template says."""
    limited(replace(RENDERING, seconds=int(sys.argv[1]) if sys.argv[1:] else RENDERING.seconds))
    given = json.loads(sys.stdin.buffer.read())
    try:
        found, count = [], 0
        for part in parts(given["template"], given["values"]):
            count += len(part)
            if count > given["most"]:
                fail(f"writes more than {given['most']:,} characters")
            found.append(part)
        answer = {"text": "".join(found)}
    except MemoryError:
        fail(f"takes more than {RENDERING.memory // 2**30} GB of memory")
    except Exception as error:  # it is somebody's program: it may raise anything
        answer = {"refused": next(iter(str(error).strip().splitlines()), type(error).__name__)}
    print(json.dumps(answer))
    done()


if __name__ == "__main__":
    main()
