"""A passage of the text in which something is found, and what goes on from there: the match in a frame, the copy coloured."""

from collections.abc import Mapping, Sequence

from viz.style import COLOR, MONO, tint
from viz.tokens import as_html, name

STYLE = f"font-family:{MONO};font-size:0.95rem;line-height:2;margin:0 0 0.6rem 0;overflow-wrap:anywhere".replace("'", "")
FRAME = "border:2px solid currentColor;border-radius:0.3em;padding:0.1em 0.25em;font-weight:700"
KEPT = f"background:{tint(COLOR['accepted'], 0.22)};border-bottom:2px solid {COLOR['accepted']}"
LEFT = f"background:{tint(COLOR['rejected'], 0.12)};border-bottom:2px dashed {COLOR['rejected']}"


def passage(
    title: str, before: Sequence[int], match: Sequence[int], copy: Sequence[int], kept: int, token_bytes: Mapping[int, bytes]
) -> str:
    """A line of HTML.

    Args:
        kept: tokens of the copy, from its beginning, that are in the text.
    """
    words = lambda tokens: "".join(f"{as_html(name(token, token_bytes, 24))} " for token in tokens)  # noqa: E731
    tokens = "".join(
        f'<span style="{KEPT if i < kept else LEFT};margin-right:0.2em">{as_html(name(token, token_bytes, 24))}</span>'
        for i, token in enumerate(copy)
    )
    framed = f'<span style="{FRAME}">{words(match).rstrip()}</span>'
    return f'<p style="{STYLE}"><b style="font-family:inherit">{as_html(title)}:</b> {words(before)}{framed} → {tokens}</p>'
