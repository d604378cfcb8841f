"""Bringing a model to this machine from a page: a button, a bar, Stop. The worker does it; a closed tab ends it."""

import os
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from decoding.limits import limits
from decoding.models import fetching, hub, places
from decoding.models.catalogue import MODELS, SMOLLM2
from decoding.models.memory import BYTES, needs
from decoding.models.progress import said
from decoding.runs.worker import Live
from pages.parts.shared.following import timed
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.runs import RunController, of_tab
from pages.parts.shared.settings import models_problem
from viz.tokens import as_markdown

REAL = f"A real model, {said(SMOLLM2.download)}, once"


@dataclass(eq=False)
class Fetching(RunController):
    """What this tab has asked to be fetched; one model at a time."""

    name: str = ""
    live: Live | None = None
    by: str = ""  # the page that asked, in a word of its own
    instead_of: str = ""  # the target that was chosen then, if what is fetched was not chosen yet
    here: str = ""  # what has come, and no page knows it yet

    @property
    def lives(self) -> tuple[Live, ...]:
        return () if self.live is None else (self.live,)

    def ask(self, name: str, by: str = "", instead_of: str = "") -> None:
        """Fetch, or go on with what was stopped."""
        from decoding.runs.fetch_job import Fetch

        with self.lock:
            self.close()
            self.problem, self.name, self.by, self.instead_of, self.here = "", name, by, instead_of, ""
            self.live = self.begin("cpu", lambda: Fetch(name))

    def sync(self) -> None:
        with self.lock:
            if self.live is not None and self.live.over:
                self.problem, self.here = self.live.problem, self.name if self.live.state == "ended" else ""
                self.live = None

    def stop(self) -> None:
        """Let go of it: what came so far lies on the disk, and asking again goes on."""
        self.close()
        self.live = None


def this_tab() -> Fetching:
    return of_tab("draftscope.fetching", Fetching)


def come(by: str, target: str) -> str:
    """The model that has just come and takes the place of `target`; "" if none has, or the visitor chose another one meanwhile."""
    tab = this_tab()
    tab.sync()
    if not tab.here or tab.by != by:
        return ""
    name, tab.here = tab.here, ""
    return name if tab.instead_of == target else ""


def say_come(name: str) -> None:
    title = MODELS[name].title if name in MODELS else name
    st.toast(as_markdown(f"{title} is here and chosen."), icon=":material/download_done:")


def fetching_controls(by: str, target: str, *others: str | None) -> None:
    """The button for what is chosen and not here, else for the real model, and how far a fetch is; nothing if all is here.

    Args:
        by: the page, in a word of its own: what it asks for comes to it.
        others: draft models, as chosen.
    """
    tab = this_tab()
    tab.sync()
    if tab.here and tab.by == by:  # it came while this page was drawn: the fields above do not know it yet
        st.rerun()
    chosen = [name for name in (target, *others) if name and can_be_fetched(name)]
    asked = (chosen[0], by) if chosen else (SMOLLM2.name, by, target)
    offered = limits().downloads and fetching.fetched(SMOLLM2.name) is None
    if tab.busy or chosen or offered:
        timed(tab, tab.tick(), lambda: draw(tab, *asked, said=bool(chosen)))


def fetch_button(place: str, name: str) -> None:
    """The same for one model, elsewhere on a page; nothing on a server where pages may not fetch."""
    if not limits().downloads:
        return
    tab = this_tab()
    tab.sync()
    with st.container(width="stretch" if tab.busy else "content"):
        timed(tab, tab.tick(), lambda: draw(tab, name, place=f"{place}_"))


def can_be_fetched(name: str) -> bool:
    """Whether a name is one of something that a fetch would bring, on a server where pages may fetch."""
    if not limits().downloads:
        return False
    of_hub = "/" in name and hub.is_id(name) and not places.is_gguf(name)
    return bool(fetching.of_package(name) or of_hub) and not fetching.fetched(name)


def draw(tab: Fetching, name: str, *more: str, place: str = "", said: bool = False) -> None:
    """The bar of what is being fetched, else the button.

    Args:
        more: of `Fetching.ask`, behind the name.
        place: in front of the keys, where a page draws it twice.
        said: whether to say that the model was chosen and is not here.
    """
    if tab.live is not None:
        job = tab.live.run
        now = job.trace if job is not None else None
        st.progress(now.share if now else 0.0, text=as_markdown(tab.in_line() or f"{tab.name}: {now or 'waiting'}"))
        st.button("Stop", key=f"{place}stop_fetch", icon=":material/stop:", on_click=tab.stop, help="What came so far is kept.")
        return
    if tab.problem:
        st.warning(as_markdown(tab.problem), icon=":material/error:")
    elif said and fetching.of_package(name):
        st.warning(as_markdown(models_problem(name, None)), icon=":material/download:")
    label, why = REAL if name == SMOLLM2.name else f"Fetch {as_markdown(name)}", words(name)
    why = WHY + why if still_loading() else why
    st.button(
        label,
        key=f"{place}fetch",
        icon=":material/download:",
        on_click=tab.ask,
        args=(name, *more),
        disabled=still_loading(),
        help=as_markdown(why),
    )


def words(name: str) -> str:
    model = fetching.of_package(name)
    if model is None:
        return "From the Hub into the cache folder of this machine; the size is said before it begins. It can be stopped."
    return f"{model.title}, licence {model.licence}: {fetching.cost(model)}. {model.what}"


def memory_line(name: str, dtype: str) -> None:
    """What a model that lies on this machine will take, under its field."""
    if not limits().allows(name):
        return
    folder = Path(name) if os.path.isdir(name) else fetching.fetched(name)
    width = BYTES.get(dtype, BYTES["float32"])
    if folder is not None and (found := needs(folder, width)) is not None:
        st.caption(f"{as_markdown(str(found))}{' (float32, on a CPU)' if dtype == 'auto' else ''}.")
