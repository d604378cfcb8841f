"""A small table of a picture, as HTML: a caption, a head, and rows whose first cell names them. Everything given is plain text."""

from collections.abc import Iterable, Sequence

from viz.tokens import as_html

CSS = """<style>
.ds-small { border-collapse: collapse; font-size: 0.95rem; margin: 0.2rem 0 0.8rem; }
.ds-small caption { text-align: left; font-size: 1rem; font-weight: 600; padding-bottom: 0.2rem; }
.ds-small td, .ds-small th { padding: 0.12rem 0.9rem 0.12rem 0; text-align: left; vertical-align: top; border: none; }
.ds-small th { font-weight: normal; overflow-wrap: anywhere; }
.ds-small td { font-variant-numeric: tabular-nums; }
</style>"""


def small_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """
    >>> small_table(("", "n"), [("a < b", "1")]).partition("</style>")[2]
    '<table class="ds-small"><tr><th></th><th>n</th></tr><tr><th scope="row">a &lt; b</th><td>1</td></tr></table>'
    """
    top = "".join(f"<th>{as_html(words)}</th>" for words in head)
    body = "".join(
        f'<tr><th scope="row">{as_html(named)}</th>{"".join(f"<td>{as_html(cell)}</td>" for cell in cells)}</tr>'
        for named, *cells in rows
    )
    said = f"<caption>{as_html(caption)}</caption>" if caption else ""
    return f'{CSS}<table class="ds-small">{said}<tr>{top}</tr>{body}</table>'
