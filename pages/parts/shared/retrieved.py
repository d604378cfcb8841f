"""What the views of the methods on a datastore share: the tree by source, the match in the text, and where it stands elsewhere.

The store is only looked into, and only where a run of this process has opened it: nothing is computed or built here. The rooms
of the backend are imported where that is the case: a stored trace is shown without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from decoding.trace import Trace
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.shared.retrieved import (
    Occurrence,
    context_html,
    match_figure,
    match_of,
    match_table,
    occurrence_html,
    occurrence_table,
    source_alt,
    source_figure,
    source_table,
)
from viz.tokens import as_markdown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from decoding.retrieval.datastore import Datastore
    from decoding.retrieval.search import Match, Sources

PLACES = 4  # occurrences that are shown
BEFORE, AFTER = 16, 20  # tokens around them


def tree(session: Session) -> None:
    """The draft tree coloured by where its nodes come from."""
    step, token_bytes = session.step, session.trace.token_bytes
    st.markdown("**Where the nodes come from**")
    if not step.nodes:
        return
    figure = source_figure(step, token_bytes, dark(), root=session.root)
    st.plotly_chart(figure, key="sources", config=PLOT_CONFIG, alt=source_alt(step))
    st.caption(as_markdown(source_alt(step)) + " Filled nodes are in the text; an edge is as wide as its share of the occurrences.")
    with st.expander("The sources as a table", key="sources_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(source_table(step, token_bytes), hide_index=True, key="sources_table")


def match(session: Session, longest: int, shortest: int, too_weak: str = "") -> None:
    """The match at the end of the text, and a few places where it stands.

    Args:
        longest, shortest: tokens the method looks for.
        too_weak: why nothing may have been drafted although there was a match.
    """
    trace, known = session.trace, match_of(session.step)
    tokens = list(trace.tokens_before(session.cursor))
    n, count = known or (0, 0)
    store, tokenizer = store_of(session)
    sources = None
    if store is not None:
        sources = sources_for(trace, store, tokenizer, tokens)
        here = sources.longest(min(longest, len(tokens)))
        if known is None:
            n, count = here.n, here.count if here.n else 0
    st.html(context_html(tokens, n, trace.token_bytes))
    if sources is None and known is None:
        st.caption("Nothing was drafted here.")
    else:
        st.caption(as_markdown(match_words(n, count, shortest, bool(session.step.nodes), too_weak)))
    if sources is None:
        st.caption("Where it stands can be looked up for a run that was made here, while its models are in memory.")
    elif n:
        occurrences(sources, here, tokenizer)


def match_words(n: int, count: int, shortest: int, drafted: bool, too_weak: str) -> str:
    """What was found, or why nothing was drafted."""
    if not n:
        return "No match: the last token occurs nowhere else."
    words = f"The last {n} tokens were found {count:,} times." if n > 1 else f"The last token alone was found {count:,} times."
    if drafted:
        return words
    reason = f"a match needs {shortest} tokens." if n < shortest else too_weak or "nothing was left."
    return f"{words} Nothing was drafted: {reason}"


def occurrences(sources: Sources, here: Match, tokenizer: PreTrainedTokenizerBase) -> None:
    """A few lines of text around some of the places, evenly over all."""
    with st.expander("Where it stands", key="places_box", on_change="rerun") as box:
        if box.open:
            places = places_of(sources, here, tokenizer)
            st.html(occurrence_html(places))
            st.dataframe(occurrence_table(places), hide_index=True, key="places_table")
    counts = ", ".join(f"{source.name}: {source.tokens:,} tokens" for source in sources.store.sources)
    st.caption(f"Looked in: {as_markdown(counts) or 'no datastore'}{'; the text so far' if sources.with_text else ''}.")


def places_of(sources: Sources, here: Match, tokenizer: PreTrainedTokenizerBase) -> list[Occurrence]:
    """Up to PLACES occurrences, those in the text first."""
    from decoding.models.token_bytes import token_bytes_maker

    piece, store, found_places = token_bytes_maker(tokenizer), sources.store, []

    def token_bytes(tokens: list[int]) -> tuple[bytes, ...]:
        return tuple(piece(token) for token in tokens)

    text = sources.text.tokens.tolist()
    for end in here.ends[-PLACES // 2 :].tolist():
        start = end - here.n
        before, after = text[max(0, start - BEFORE) : start], text[end : end + AFTER]
        found_places.append(Occurrence("the text so far", token_bytes(before), token_bytes(text[start:end]), token_bytes(after)))
    left = PLACES - len(found_places)
    stride = max(1, (here.high - here.low) // max(1, left))
    for place in store.suffixes[here.low : here.high : stride][:left].tolist():
        before, after = store.around(place, BEFORE, here.n + AFTER)
        title = store.title(place) or "the datastore"
        found_places.append(Occurrence(title, token_bytes(before), token_bytes(after[: here.n]), token_bytes(after[here.n :])))
    return found_places


def run_so_far(session: Session) -> None:
    """Lengths of the matches, step by step."""
    steps = session.trace.steps
    with st.expander("Matches of the whole run", key="matches_box", on_change="rerun") as box:
        if box.open:
            alt = "Bars: how many tokens matched in every step, and how many were accepted."
            st.plotly_chart(match_figure(steps, session.cursor, dark()), key="matches", config=PLOT_CONFIG, alt=alt)
            st.dataframe(match_table(steps), hide_index=True, key="matches_table")


def store_of(session: Session) -> tuple[Datastore | None, PreTrainedTokenizerBase | None]:
    """The store of the run that is shown, and its tokenizer; None where the run was not made here."""
    family = getattr(getattr(session.live, "run", None), "family", None)
    if family is None:
        return None, None
    from decoding.retrieval.default_datastore import opened

    return opened(family.tokenizer), family.tokenizer


def sources_for(trace: Trace, store: Datastore, tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> Sources:
    """What the run looked in, as its parameters say."""
    from decoding.retrieval.datastore import of_tokens
    from decoding.retrieval.search import Sources

    where = trace.header.params.get("where")
    store = of_tokens([], store.separator) if where == "text so far" else store
    sources = Sources(store, frozenset({tokenizer.eos_token_id}), with_text=where != "datastore")
    sources.follow(tokens)
    return sources
