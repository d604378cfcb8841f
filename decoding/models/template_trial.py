"""A chat template on trial: parsed and filled in for a few chats, in the process of `decoding.models.probe` only."""

from jinja2 import nodes

from decoding.models.template_sandbox import parts, sandbox

CHATS = (
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}],
)
LARGEST = 1_000_000  # number in a template
LONGEST = 4_000_000  # characters that it may write


def try_template(text: str) -> None:
    """Use a template the way a run does; what it says against a chat is its right, what it does to the machine is not.

    Raises:
        ValueError: it computes what no chat needs.
        jinja2.TemplateSyntaxError: it is no template.
    """
    check(sandbox().parse(text))
    for chat in CHATS:
        written = 0
        try:
            for part in parts(text, {"messages": chat, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}):
                if (written := written + len(part)) > LONGEST:
                    break
        except MemoryError:
            raise
        except Exception:  # what it says against a chat
            continue
        if written > LONGEST:
            raise ValueError(f"its chat template writes more than {LONGEST:,} characters for a chat of a few words.")


def check(parsed: nodes.Template) -> None:
    """Refuse by its program a template that need not end (ValueError)."""
    if next(parsed.find_all(nodes.Pow), None) is not None:
        raise ValueError("its chat template computes powers, which no chat needs and which can take for ever.")
    for constant in parsed.find_all(nodes.Const):
        if isinstance(constant.value, (int, float)) and abs(constant.value) > LARGEST:
            raise ValueError(f"its chat template has a number above {LARGEST:,}, which no chat needs.")
