"""What the panels of many methods have in common: why there is nothing to draw, and views that are drawn once they are open."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from decoding.trace import Step
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.shared.head_bars import records, records_alt, records_figure, records_table
from viz.tokens import as_markdown


def drawable(step: Step, known: bool, lacking: str, empty: str = "Nothing was drafted in this step.") -> bool:
    """Whether there is something to draw; if not, the page says why.

    Args:
        known: the nodes carry the numbers of the panel; an imported trace may not.
        lacking: said where they do not.
        empty: said where there are no nodes.
    """
    if step.nodes and known:
        return True
    st.caption(as_markdown(lacking) if step.nodes else as_markdown(empty))
    return False


def folded(title: str, key: str, draw: Callable[..., None], *args: Any) -> None:
    """A folded box; what is in it is drawn when it is open, and costs nothing before."""
    with st.expander(as_markdown(title), key=key, on_change="rerun") as box:
        if box.open:
            draw(*args)


def heads_so_far(session: Session) -> None:
    """How often every head that is told what stands before was right, with its table."""
    method, found = session.trace.header.method, records(session.trace.steps[: session.cursor + 1])
    figure = records_figure(found, dark(), ("top", "any"))
    st.plotly_chart(figure, key=f"{method}_records", config=PLOT_CONFIG, alt=records_alt(found))
    st.caption(
        "A head is asked where the tree holds everything that the text says before it. Right means: it is what the text says at "
        "that place in the end."
    )
    st.dataframe(records_table(found), hide_index=True, key=f"{method}_records_table")
