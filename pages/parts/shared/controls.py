"""The settings of a run: prompt, method, its parameters, sampling, seed, limit, models. Derived from METHODS; nothing is
computed here.

Widgets of one page forget their values on another, so they are kept in `Session.values` as well. `read` is what the
controls say right now, also inside a callback, before anything was drawn again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

import streamlit as st

from decoding.limits import limits
from decoding.methods import METHODS
from decoding.models.catalogue import MODELS, NAMED, SMOLLM2
from decoding.models.ends import read_stops
from decoding.models.hub import is_id
from decoding.models.names import HYPER
from decoding.models.rasters import open_prompt, raster_named
from decoding.runs.failures import told
from decoding.sample import MAX_GUIDANCE, MAX_TEMPERATURE
from decoding.trace import MAX_TOKENS
from pages.parts.shared.chat_controls import asked, chat_controls, chat_on, chat_toggle, say_chat, template_of, written
from pages.parts.shared.examples import EXAMPLES
from pages.parts.shared.fetching import come, fetching_controls, memory_line, say_come
from pages.parts.shared.loading import still_loading
from pages.parts.shared.picture_controls import PICTURE, asked_for, picture_controls
from pages.parts.shared.recommended import recommended
from pages.parts.shared.remembered import say_control
from pages.parts.shared.session import Session
from pages.parts.shared.settings import (
    LEAST_TOP_P,
    MAX_PROMPT,
    MAX_SEED,
    MAX_STOP,
    Settings,
    family_named,
    models_notes,
    models_problem,
)
from viz.tokens import as_markdown
from viz.words import prompt_end

OWN = "my own prompt"
HERE = "run"  # what is fetched for these controls
EMBEDDED, FOLDER, HUB, NONE = "embedded", "a local folder", "a Hub id", "none"
DRAFTS = (EMBEDDED, HYPER, SMOLLM2.name)  # what drafts for another target by a name of ours
DTYPES = ("auto", "float32", "bfloat16", "float16")
SAMPLING = ("temperature", "top_k", "top_p", "seed", "max_tokens", "stop_tokens", "ignore_end")  # settings of the sampling box
STOP_HELP = (
    "The run ends behind each of these too. One per line: a text that is one token, with \\n, \\t and \\s for line break, tab and "
    "space, or #7 for token 7."
)
FORMAT_HELP = "auto: on a CPU float32, or bfloat16 where that is faster; else as stored."
GUIDANCE_HELP = (
    "Away from what the target draws when it is told nothing: logits u + s (c - u), c behind the words, u behind `any`. 1 is off; "
    "any other scale is another target, for which every method is exact."
)
END_HELP = "The token that ends a text is written like any other, and the run goes on to its limit."


def param_key(method: str, name: str) -> str:
    return f"param.{method}.{name}"


def say(session: Session, settings: Settings) -> None:
    """Let the controls say `settings`; before they are drawn, or in a callback."""
    if not settings.messages:
        session.values["prompt" if raster_named(settings.target) is None else PICTURE] = settings.prompt
    say_chat(session, settings.messages, settings.template, settings.target)
    values: dict[str, Any] = {
        "method": settings.method,
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "guidance": settings.guidance,
        "seed": settings.seed,
        "max_tokens": settings.max_tokens,
        "stop_tokens": settings.stop_tokens,
        "ignore_end": settings.ignore_end,
        "device": settings.device,
        "dtype": settings.dtype,
    }
    say_values(session, values)
    say_models(session, settings.target, settings.draft)
    say_params(session, settings)


def say_params(session: Session, settings: Settings) -> None:
    """Let the controls say the parameters of the method; those that are given while the others are not known yet."""
    params = settings.params if still_loading() else settings.full_params
    say_values(session, {param_key(settings.method, name): value for name, value in params.items()})


def say_values(session: Session, values: Mapping[str, Any]) -> None:
    session.values.update(values)
    for key, value in values.items():
        say_control(key, value)


def begin(session: Session) -> None:
    """Let the controls say the settings of the run that is shown, if they say nothing yet."""
    if not session.values:
        say(session, session.settings or Settings())
    if name := come(HERE, target_of(session)):
        session.values.pop("chat", None)  # on, if it has a template
        say_models(session, name, None)
        say_come(name)


def say_models(session: Session, target: str, draft: str | None) -> None:
    """Let the fields say a target and a draft model, each by its name of ours, a folder or a Hub id."""
    kind = lambda name: HUB if "/" in name and is_id(name) else FOLDER  # noqa: E731
    values = {"target": target if target in NAMED else kind(target), "target_name": "" if target in NAMED else target}
    values |= {"draft": NONE if draft is None else draft if draft in DRAFTS else kind(draft)}
    values["draft_name"] = "" if draft in DRAFTS else draft or ""
    say_values(session, values)


def value(session: Session, key: str, default: Any) -> Any:
    return st.session_state.get(key, session.values.get(key, default))


def prompt_of(session: Session) -> str:
    """What the prompt box says, or the last message of a chat."""
    if chat_on(session, target_of(session)):
        return asked(session)[-1].content
    raster = raster_named(target_of(session))
    if raster is None:
        return written(session, "prompt", Settings().prompt)
    return asked_for(session.values.get(PICTURE, ""), raster)


def target_of(session: Session) -> str:
    target = value(session, "target", EMBEDDED)
    return target if target in NAMED or target in (limits().models or ()) else value(session, "target_name", "").strip()


def draft_of(session: Session) -> str | None:
    draft = value(session, "draft", NONE)
    if draft in (limits().models or ()):
        return draft
    return None if draft == NONE else draft if draft in DRAFTS else value(session, "draft_name", "").strip()


def read(session: Session) -> Settings:
    """What the controls say right now."""
    base = Settings()
    method = value(session, "method", base.method)
    params = {f.name: value(session, param_key(method, f.name), f.default) for f in fields(METHODS[method].params)}
    simple = (*SAMPLING, "device", "dtype", *(["guidance"] if can_guide(target_of(session)) else []))
    target = target_of(session)
    chat = chat_on(session, target)
    if (raster := raster_named(target)) is not None:
        simple = tuple(name for name in simple if name != "max_tokens")  # as many as there are pixels
    return Settings(
        prompt="" if chat else prompt_of(session),
        messages=asked(session) if chat else (),
        template=template_of(session) if chat else "",
        **{name: value(session, name, getattr(base, name)) for name in simple},
        method=method,
        params=params,
        target=target,
        draft=draft_of(session),
        **({} if raster is None else {"max_tokens": raster.pixels}),
    )


def can_guide(target: str) -> bool:
    """Whether a target draws pictures and has also learned to draw without being told what."""
    raster = raster_named(target)
    return raster is not None and bool(open_prompt(raster))


def stale(session: Session) -> bool:
    """Whether the controls say something else than the run that is shown was made with; not known before the methods are there."""
    return not still_loading() and session.settings is not None and not session.settings.same_run(read(session))


def remember(session: Session, key: str, default: Any) -> str:
    """Give the widget `key` the value it had, on whatever page that was; returns the key."""
    if key not in st.session_state:
        st.session_state[key] = session.values.get(key, default)
    return key


def kept(session: Session, key: str, default: Any, options: Sequence[Any] | None = None) -> dict[str, Any]:
    """Key and default of a remembered widget, as its keyword arguments; with `options` those of a menu.

    The default is the value it has: a browser that is still busy when the page runs for the second time never hears of a value
    that only the first run set, shows the default, and sends that back with the next click.
    """
    now = st.session_state[remember(session, key, default)]
    if options is None:
        return {"key": key, "value": now}
    return {"key": key, "index": list(options).index(now) if now in options else 0}


def keep_values(session: Session) -> None:
    """Note what the controls say: widgets of one page forget their values on another."""
    session.values |= {key: st.session_state[key] for key in KEYS if key in st.session_state}
    if not still_loading():
        settings = read(session)
        session.values |= {param_key(settings.method, name): v for name, v in settings.params.items()}


KEYS = ("method", *SAMPLING, "guidance", "device", "dtype", "target", "target_name", "draft", "draft_name")


def prompt_controls(session: Session) -> None:
    """Chat or plain text, and what it says."""
    if (raster := raster_named(target_of(session))) is not None:
        picture_controls(session, raster, prompt_of(session))
    elif chat_toggle(session, target_of(session)):
        chat_controls(session)
    else:
        text_controls(session)


def text_controls(session: Session) -> None:
    """The menu of examples and the prompt. Either sets the other, so both are boxes of the session: a click that comes before the
    browser has the new text sends the old one along, and must not count as writing it."""
    prompt = prompt_of(session)
    menu, example = [OWN, *EXAMPLES], next((key for key, e in EXAMPLES.items() if e.prompt == prompt), OWN)
    example_key, prompt_key = session.box("example", example), session.box("prompt", prompt)

    def take_example() -> None:
        chosen = st.session_state.get(example_key, example)  # a box that is gone may report, and has no value any more
        if chosen != example and chosen in EXAMPLES:
            session.values["prompt"] = EXAMPLES[chosen].prompt
            session.box_says("example", chosen)

    def take_prompt() -> None:
        if (written := st.session_state.get(prompt_key, prompt)) != prompt:
            session.values["prompt"] = written
            session.box_says("prompt", written)

    st.selectbox(
        "Example", menu, menu.index(example), key=example_key, on_change=take_example,
        format_func=lambda key: EXAMPLES[key].title if key in EXAMPLES else OWN, help="Puts a prompt into the box below.",
    )  # fmt: skip
    st.text_area(
        "Prompt", prompt, key=prompt_key, height=112, max_chars=limits().prompt or MAX_PROMPT, on_change=take_prompt,
        help="The text the target goes on from. Ctrl+Enter, or a click elsewhere, takes it over.",
    )  # fmt: skip
    if example in EXAMPLES:
        st.caption(EXAMPLES[example].look)
    elif said := prompt_end(prompt):
        st.caption(as_markdown(said))


def method_params(session: Session, method: str) -> None:
    """The parameters of a method."""
    for spec in fields(METHODS[method].params):
        param_control(session, method, spec)


def lacking_methods(target: str, draft: str | None) -> dict[str, str]:
    """Method -> why these models cannot serve it; that a model of the catalogue is still to be fetched is no reason."""
    if (problem := models_problem(target, draft)) and not Settings(target=target, draft=draft).to_fetch:
        return dict.fromkeys(METHODS, problem)
    family = family_named(target, draft)
    return {key: reason for key, method in METHODS.items() if (reason := method.missing(family))}


def method_box(owner: Any, key: str, default: str, label: str, help: str | None, options: Sequence[str]) -> str:
    """The menu by itself. Its labels never change: Streamlit finds the choice again by its label, and one that is gone comes back
    as a bare text."""
    return st.selectbox(
        as_markdown(label),
        options,
        **kept(owner, key, default, options),
        format_func=lambda k: METHODS[k].title,
        help=help and as_markdown(help),
    )


def method_menu(
    owner: Any, key: str, default: str, lacking: Mapping[str, str], label: str, help: str | None = None, menu: Sequence[str] = ()
) -> str:
    """A menu of methods, and below it what the chosen one does, or why it cannot run with these models.

    Args:
        owner: any object that has `values`.
        menu: keys to choose from; all of them if left out.
    """
    chosen = method_box(owner, key, default, label, help, menu or list(METHODS))
    if chosen in lacking:
        st.warning(as_markdown(lacking[chosen]), icon=":material/block:")
    else:
        st.caption(METHODS[chosen].idea)
    return chosen


def param_control(session: Session, method: str, spec: Field) -> None:
    """One control for one parameter, from its kind and range."""
    rules = spec.metadata
    name, choices = param_key(method, spec.name), rules["choices"]
    now = kept(session, name, spec.default, choices or None)
    if choices:
        st.selectbox(rules["label"], list(choices), **now, help=rules["help"])
    elif isinstance(spec.default, str):
        st.text_input(rules["label"], **now, max_chars=rules["longest"], help=rules["help"])
    elif isinstance(spec.default, bool):
        st.toggle(rules["label"], **now, help=rules["help"])
    elif isinstance(spec.default, int):
        st.number_input(
            f"{rules['label']} ({rules['low']} to {rules['high']})", rules["low"], rules["high"], step=1, **now, help=rules["help"]
        )
    else:
        st.slider(rules["label"], rules["low"], rules["high"], **now, help=rules["help"])


def sampling_controls(session: Session, prefix: str = "") -> None:
    """Another page takes a `prefix` for its keys and any object that has `values`; it guides no pictures."""
    keep = lambda key: kept(session, prefix + key, getattr(Settings(), key))  # noqa: E731
    st.slider(
        "Temperature", 0.0, MAX_TEMPERATURE, step=0.05, **keep("temperature"), help="0 is greedy: always the likeliest token."
    )
    st.number_input("Top-k", 0, 1000, step=1, **keep("top_k"), help="Only the k likeliest tokens stay, in p and q; 0 is off.")
    st.slider("Top-p", LEAST_TOP_P, 1.0, step=0.05, **keep("top_p"), help="The smallest set of this probability stays; 1 is off.")
    if not prefix and can_guide(target_of(session)):
        guidance = {**keep("guidance"), "step": 0.25, "help": GUIDANCE_HELP}
        st.slider("Guidance", 0.0, MAX_GUIDANCE, **guidance)
    st.number_input("Seed", 0, MAX_SEED, step=1, **keep("seed"), help="Every die of the run comes from it: same seed, same run.")
    st.number_input("Token limit", 1, MAX_TOKENS, step=16, **keep("max_tokens"), help="New tokens; the run ends exactly there.")
    st.text_area(
        "Stop tokens", **keep("stop_tokens"), height=68, max_chars=MAX_STOP, placeholder="none of your own", help=STOP_HELP
    )
    st.toggle("Go on behind the end of the text", **keep("ignore_end"), help=END_HELP)
    try:
        read_stops(st.session_state[prefix + "stop_tokens"])
    except ValueError as error:
        st.warning(as_markdown(told(error)), icon=":material/error:")


def offered_models(session: Session) -> None:
    """The models of a public server: a menu; nothing that a visitor writes is looked for."""
    models = limits().models or ()
    for key, label, menu in (("target", "Target", models), ("draft", "Draft model", (NONE, *models))):
        if st.session_state[remember(session, key, menu[0])] not in menu:  # of an opened trace
            st.session_state[key] = session.values[key] = menu[0]
        st.selectbox(label, menu, **kept(session, key, menu[0], menu), format_func=title_of)
    st.caption("Models are loaded with the first step.")


def title_of(model: str) -> str:
    return "the target's own" if model == NONE else MODELS[model].title if model in MODELS else model


def model_controls(session: Session) -> None:
    if not limits().paths:
        offered_models(session)
        return
    keep = lambda key, default, options=None: kept(session, key, default, options)  # noqa: E731
    targets, drafts = (*NAMED, FOLDER, HUB), (NONE, *DRAFTS, FOLDER, HUB)
    if not still_loading():
        recommended(session, (target_of(session), draft_of(session)), lambda *pair: say_models(session, *pair))
    kind = st.selectbox(
        "Target", targets, **keep("target", EMBEDDED, targets), format_func=lambda k: MODELS[k].title if k in MODELS else k,
        help=as_markdown(" ".join(f"{MODELS[k].title}: {MODELS[k].what}" for k in NAMED)),
    )  # fmt: skip
    if kind not in NAMED:
        st.text_input(f"Target, {kind}", **keep("target_name", ""), placeholder=hint(kind))
    memory_line(target_of(session), value(session, "dtype", Settings().dtype))
    kind = st.selectbox(
        "Draft model",
        drafts,
        **keep("draft", NONE, drafts),
        format_func=title_of,
        help="With the tokenizer of the target it serves every method that needs one; with another it serves Universal assisted "
        "drafting. The embedded targets and smollm2 bring one of their own, others do not. A folder with a published head for the "
        "target (EAGLE, EAGLE-3, speculators, Medusa) goes here too.",
    )
    if kind not in (NONE, *DRAFTS):
        st.text_input(f"Draft model, {kind}", **keep("draft_name", ""), placeholder=hint(kind))
    fetching_controls(HERE, target_of(session), draft_of(session))
    st.text_input(
        "Device", **keep("device", "auto"), help="auto, cpu, cuda, cuda:1 or mps; auto-map spreads a large target over all GPUs"
    )
    st.selectbox(
        "Number format",
        DTYPES,
        **keep("dtype", "auto", DTYPES),
        help=FORMAT_HELP,
    )
    if not still_loading():
        for note in models_notes(target_of(session), draft_of(session)):
            st.caption(as_markdown(note))
    st.caption("Models are loaded with the first step. Only safetensors are read and no code of a model is run.")


def hint(kind: str) -> str:
    return "/path/to/model, or to a GGUF file" if kind == FOLDER else "owner/name"
