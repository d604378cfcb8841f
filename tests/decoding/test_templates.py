"""The sandbox of chat templates in a process of its own: it writes what transformers writes, and ends whatever it is given."""

import copy
from dataclasses import replace

import pytest

from decoding.models import chat
from decoding.models.apart import RENDERING
from decoding.models.chat import filled_apart, filled_here, rendered
from decoding.trace import Message
from tests import toys

CHATS = (
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": " be brief\n"}, {"role": "user", "content": "<b>&amp; {{ 7 * 7 }} \U0001f600 \u2028"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "'\"\\"}],
)
TEMPLATES = {
    "roles": toys.TEMPLATE,
    "special tokens": "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m.content }}{{ eos_token }}{% endfor %}",
    "lines": "{% for m in messages %}\n    {% if loop.first %}\n  one\n    {% else %}\n  more\n    {%- endif %}\n{% endfor %}\n",
    "JSON": "{{ messages | tojson }} {{ {'b': '<é>', 'a': [1, none]} | tojson(indent=2) }} {{ 'é' | tojson(true) }}",
    "generation": "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{{ x }}{% endfor %}",
    "loops": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "namespaces": "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}",
    "dicts": "{{ dict(a=1) }} {{ dict.fromkeys(['x'], 2) }}",
    "macros": "{% macro f(x, y='z') %}[{{ x }}{{ y }}]{% endmacro %}{{ f(messages[0].content) }}{{ f(1, y=2) }}",
    "filters": "{{ messages[0].content | upper | replace('L', 'l') | trim | default('x') }} {{ [3, 1] | sort | join('-') }}",
    "nothing there": "[{{ tools }}][{{ documents }}][{{ nobody }}][{{ add_generation_prompt }}][{{ messages[0].name }}]",
    "escapes": "{{ '<' ~ messages[-1].content ~ '>' }} {{ '<b>' | e }}",
    "years": "{{ strftime_now('%Y') }}",
    "options": "{{ loud }} {{ name }} {{ budget + 1 }} {% if not thinking %}quiet{% endif %}",
}
REFUSING = {
    "a sentence": "{{ raise_exception('Roles must alternate') }}",
    "a class": "{{ ''.__class__.__mro__ }}",
    "a name in a namespace": "{% set n = namespace(_a=1) %}",
    "another name": "{% set n = namespace() %}{% set n['_a'] = 1 %}{{ n }}",
    "a change": "{{ messages.append(1) }}",
    "a division": "{{ 1 / 0 }}",
    "too wide a range": "{% for i in range(10**9) %}{{ i }}{% endfor %}",
}
OPTIONS = {"loud": True, "name": "é", "budget": 3, "thinking": False}


def with_template(template: str):
    words = copy.copy(toys.chatting())
    words.chat_template = template
    return words


@pytest.mark.parametrize("kind", TEMPLATES)
def test_it_writes_what_transformers_writes(kind):
    words = with_template(TEMPLATES[kind])
    for messages in CHATS:
        assert filled_apart(words, messages, OPTIONS) == filled_here(words, messages, OPTIONS)


@pytest.mark.parametrize("kind", REFUSING)
def test_it_refuses_what_transformers_refuses(kind):
    words = with_template(REFUSING[kind])
    said = []
    for fill in (filled_apart, filled_here):
        with pytest.raises(Exception) as refusal:
            fill(words, CHATS[0], OPTIONS)
        said.append(str(refusal.value).splitlines()[0])
    assert said[0] == said[1]


ENDLESS = {
    "many rounds": ("{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3, "takes longer than 1 seconds"),
    "growth": (
        "{% set n = namespace(v='aaaa') %}{% for i in range(64) %}{% set n.v = n.v ~ n.v %}{% endfor %}{{ n.v }}",
        "memory|writes|takes longer",
    ),
    "a product": ("{{ 'a' * 1000000 * 1000000 }}", "memory|MemoryError|writes more"),
    "a power": ("{{ 9 ** (9 ** 9) }}", "takes longer than 1 seconds"),
    "a filter": ("{{ 'a' | center(10 ** 11) }}", "memory|MemoryError"),
    "a list": ("{{ ([0] * 1000000 * 1000) | length }}", "memory|takes longer"),
    "words of no sense": ("{{ lipsum(n=1000000) }}", "takes longer than 1 seconds"),
    "a macro": ("{% macro a(n) %}{{ a(n + 1) ~ a(n + 1) }}{% endmacro %}{{ a(0) }}", "recursion|takes longer|memory"),
    "only for some": (
        "{% if messages[0].content == 'Hello' %}{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}{% endif %}",
        "writes more",
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_without_an_end_is_ended(kind, monkeypatch):
    """Whatever it computes, in whatever function of the library."""
    template, words = ENDLESS[kind]
    monkeypatch.setattr(chat, "RENDERING", replace(RENDERING, seconds=1))
    with pytest.raises(ValueError, match=f"The chat template of toy .*({words})"):
        rendered(with_template(template), [Message("user", "Hello")], {}, "toy")
