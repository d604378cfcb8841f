"""The votes of a class as HTML."""

from collections.abc import Sequence

from viz.lessons.lesson import Question, shown_html


def tally_html(question: Question, counts: Sequence[int], tabs: int, right: int | None, own: int | None = None) -> str:
    """Before the answer only how many voted, so that nobody follows the others; then the bars, `right` with its mark."""
    total = sum(counts)
    said = f"{total:,} {'vote' if total == 1 else 'votes'}, {tabs:,} {'tab' if tabs == 1 else 'tabs'} in the class"
    if right is None:
        rows = "".join(f"<li>{shown_html(option)}</li>" for option in question.options)
        return f'<div class="lsn"><ol class="lsn-ballot">{rows}</ol><p class="lsn-kicker" role="status">{said}</p></div>'
    top = max(1, *counts)
    rows = "".join(
        f"<span>{'✓ ' if i == right else ''}{shown_html(option)}{' (you)' if i == own else ''}</span>"
        f'<span class="lsn-track"><i style="width:{100 * count / top:.1f}%"></i></span><b>{count:,}</b>'
        for i, (option, count) in enumerate(zip(question.options, counts, strict=True))
    )
    return f'<div class="lsn"><div class="lsn-tally">{rows}</div><p class="lsn-kicker" role="status">{said}</p></div>'
