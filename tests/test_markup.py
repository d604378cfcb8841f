"""Nothing reaches Markdown that was not written here: what a call on a page draws as Markdown is a constant, a number, or goes
through `as_markdown`. Token text, traces, prompts, names, notes, errors and file names come from outside.

What the pages draw in the end is looked at in `tests/pages/test_markup.py`; this test reads the calls.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([ROOT / "app.py", *(ROOT / "pages").rglob("*.py")])

SAID = {"body", "label", "help", "text", "caption", "captions", "delta"}  # arguments that are Markdown, whatever the call
FIRST = {  # calls whose first argument is Markdown
    "badge", "button", "caption", "checkbox", "dialog", "download_button", "error", "expander", "header", "info", "link_button",
    "markdown", "metric", "page_link", "popover", "progress", "spinner", "status", "subheader", "success", "tabs", "toast",
    "toggle", "write", "date_input", "file_uploader", "form_submit_button", "multiselect", "number_input", "radio",
    "segmented_control", "select_slider", "selectbox", "slider", "text_area", "text_input", "warning",
}  # fmt: skip
DOORS = {"as_markdown"}
NUMBERS = {"len", "number", "round", "two", "min", "max"}  # what they return has no letter that Markdown reads
PLAIN = {  # file -> parts that were written here, or went through the door before
    "absent": {"help"},
    "chat_controls": {"help", "label"},
    "comparison": {"where", "list(views)", "verdict", "', '.join((f'{t:g}' for t in warm))"},
    "controls": {"rules['label']", "rules['help']", "rules['low']", "rules['high']", "kind", "help", "label"},
    "eagle": {"true"},
    "exports": {"kind"},
    "fetching": {"label"},
    "findings_view": {"list(views)", "name", "value"},
    "gallery": {"one.words", "method.paper", "tree"},
    "recording": {"line", "help"},
    "setup": {"label"},
    "step_view": {"list(views)"},
    "tables": {"title"},
    "side_job": {"help"},
    "spectr": {"where"},
    "tallies": {"value", "help_"},
}


def calls(file: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]


def drawn(call: ast.Call) -> list[ast.expr]:
    """The arguments of a call that are drawn as Markdown; none of a call that is no element."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in FIRST:
        return []
    first = {"metric": 2, "progress": 0, "page_link": 0}.get(call.func.attr, 1)
    return [*call.args[:first], *(keyword.value for keyword in call.keywords if keyword.arg in SAID)]


def root(node: ast.expr) -> str:
    """The name an expression begins with.

    >>> root(ast.parse("METHODS[key].title", mode="eval").body)
    'METHODS'
    """
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id


def open_parts(node: ast.expr) -> list[ast.expr]:
    """The parts of an expression whose text is not known to be harmless."""
    match node:
        case ast.Constant():
            return []
        case ast.JoinedStr():
            return [part for value in node.values for part in open_parts(value)]
        case ast.FormattedValue():
            return [] if numeric(node) else open_parts(node.value)
        case ast.BinOp(op=ast.Mult()):
            return open_parts(node.left)
        case ast.BinOp():
            return [*open_parts(node.left), *open_parts(node.right)]
        case ast.BoolOp(op=ast.And()):
            return open_parts(node.values[-1])
        case ast.BoolOp():
            return [part for value in node.values for part in open_parts(value)]
        case ast.IfExp():
            return [*open_parts(node.body), *open_parts(node.orelse)]
        case ast.Call(func=ast.Name(id=name)) if name in DOORS | NUMBERS:
            return []
    return [] if root(node).isupper() else [node]


def numeric(value: ast.FormattedValue) -> bool:
    """Whether the format lets nothing but a number through: `:,`, `:.2f` and `:g` raise for a text."""
    parts = value.format_spec.values if isinstance(value.format_spec, ast.JoinedStr) else []
    return bool(parts) and all(isinstance(part, ast.Constant) for part in parts) and str(parts[-1].value)[-1] in ",defg%"  # type: ignore


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_drawn_as_markdown_goes_through_the_door(file):
    open_ones = [
        f"{file.name}:{call.lineno} {ast.unparse(part)}"
        for call in calls(file)
        for argument in drawn(call)
        for part in open_parts(argument)
        if ast.unparse(part) not in PLAIN.get(file.stem, ())
    ]
    assert not open_ones, "\n".join(["hand these to as_markdown, give numbers a format, or say in PLAIN why not:", *open_ones])


def test_this_test_sees_an_open_door():
    tree = ast.parse("st.warning(f'{note:,} {note}'); box.markdown(as_markdown(note)); st.button('a', help=CAPTION + f(x))")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [part for call in calls for argument in drawn(call) for part in open_parts(argument)]
    assert sorted(map(ast.unparse, found)) == ["f(x)", "note"]
