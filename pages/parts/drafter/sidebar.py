"""The left rail of the Drafter page: prompts, one or two drafters, sampling, models. It says what to run; it runs nothing."""

import re
from dataclasses import fields

import streamlit as st

from decoding.limits import Refused, check_models, check_prompts, limits
from decoding.methods import METHODS
from decoding.models.chat import read_options
from decoding.models.ends import read_stops
from decoding.runs.failures import told
from decoding.runs.prompts import MAX_FILE, MAX_PROMPTS, Prompt, checked, read_prompts, spread
from decoding.runs.study import Plan, family_of_plan
from decoding.sample import Sampling
from pages.parts.drafter.controller import Job, StudyController
from pages.parts.shared.chat_controls import OPTIONS_HELP, chat_on, chat_toggle
from pages.parts.shared.controls import (
    DTYPES,
    EMBEDDED,
    SAMPLING,
    kept,
    lacking_methods,
    method_menu,
    param_control,
    param_key,
    remember,
    sampling_controls,
    title_of,
    value,
)
from pages.parts.shared.examples import CHAT_EXAMPLES, EXAMPLES
from pages.parts.shared.fetching import come, fetching_controls, memory_line, say_come
from pages.parts.shared.in_turn import Later, reading
from pages.parts.shared.settings import Settings
from viz.tokens import as_markdown, plain

EXAMPLE, TYPED, FILE = "examples", "typed", "a file"
FIRST_TURNS = "Of each prompt the first turn alone: a model without a chat template cannot be asked the {}."
SIDES = {"A": "speculative_sampling", "B": "prompt_lookup"}  # and the method each begins with
PARTS = {
    "draft": (
        "Draft model",
        "A folder or a Hub id; with another tokenizer than the target's for Universal assisted drafting and Byte drafting alone. "
        "Empty: the target's own.",
    ),
    "head": ("Published head", "A folder or a Hub id, in the format of the method's authors or of speculators. Empty: ours."),
}
MODELS = {"target": EMBEDDED, "device": "auto", "dtype": "auto"}
LONGEST = 200_000  # characters of the box, where a server has no limit of its own
FILES = ["txt", "jsonl", "json", "ndjson", "csv", "tsv", "gz"]
CHAT = "study_chat"  # the switch
HERE = "study"  # what is fetched for this page


def drafter_sidebar(controller: StudyController) -> tuple[tuple[Prompt, ...], str]:
    """Draw the rail; returns the prompts and, if there are none, why."""
    if name := come(HERE, target_of(controller)):
        controller.values["study.target"] = st.session_state["study.target"] = name
        say_come(name)
    with st.sidebar:
        prompts, problem = prompt_source(controller)
        method_box(controller, "A")
        if st.toggle(
            "Second drafter", **kept(controller, "study.two", False), help="The same prompts, dice and limits, to compare."
        ):
            method_box(controller, "B")
        with st.expander("Sampling and length", key="study.sampling_box"):
            sampling_controls(controller, "study.")
            st.caption(as_markdown(seeds(prompts, chat_on(controller, target_of(controller), CHAT))))
        with st.expander("Model", key="study.model_box"):
            models(controller)
    controller.values |= {k: v for k, v in st.session_state.items() if str(k).startswith(("study.", "param.A.", "param.B."))}
    return prompts, problem


def prompt_source(controller: StudyController) -> tuple[tuple[Prompt, ...], str]:
    """Where the prompts come from; at most so many of them."""
    source = st.segmented_control(
        "Prompts",
        [EXAMPLE, TYPED, FILE],
        default=st.session_state[remember(controller, "study.source", EXAMPLE)],
        key="study.source",
        required=True,
        width="stretch",
    )
    chat = chat_toggle(controller, target_of(controller), CHAT)
    if chat:
        st.text_input("Template options", **kept(controller, "study.template", ""), help=OPTIONS_HELP)
    try:
        found = {EXAMPLE: examples, TYPED: typed, FILE: uploaded}[source](controller)
    except ValueError as error:
        said = told(error)
        st.error(as_markdown(plain(said, 300)), icon=":material/error:")
        return (), f"The prompts cannot be read. {said}"
    most = st.number_input(
        "At most so many prompts",
        0,
        MAX_PROMPTS,
        step=10,
        **kept(controller, "study.most", 0),
        help="From all categories alike; 0 takes all.",
    )
    found = spread(found, most)
    turns = sum(len(prompt.questions) - 1 for prompt in found)
    if turns:
        more = "1 further turn" if turns == 1 else f"{turns:,} further turns"
        said = f"{more}, each asked behind the answers before it." if chat else FIRST_TURNS.format(more)
        st.caption(as_markdown(said))
    try:
        check_prompts(len(found) + turns * chat)  # before anything is made of them, which takes long with thousands
    except Refused as error:
        return (), told(error)
    return found, "" if found else "There is no prompt yet: type some, upload a file, or take the examples."


def seeds(prompts: tuple[Prompt, ...], chat: bool) -> str:
    """Which seed a run has: in a chat every turn is a run, and they are counted through all prompts."""
    if chat and any(len(prompt.questions) > 1 for prompt in prompts):
        return "Every turn is a run of its own, and run n of all has the seed plus n − 1."
    return "Prompt n runs with the seed plus n − 1."


def examples(controller: StudyController) -> tuple[Prompt, ...]:
    if chat_on(controller, target_of(controller), CHAT):
        st.caption(f"The {len(CHAT_EXAMPLES)} chats of the Step page.")
        return tuple(Prompt(e.prompt, e.title.partition(": ")[2]) for e in CHAT_EXAMPLES.values())
    st.caption(f"The {len(EXAMPLES)} examples of the Step page: stories, mathematics, Python.")
    return tuple(Prompt(e.prompt, e.title.partition(":")[0].lower()) for e in EXAMPLES.values())


def longest() -> int:
    """Characters of the box: all prompts that may be studied."""
    rules = limits()
    return LONGEST if rules.prompt is None or rules.prompts is None else rules.prompt * rules.prompts


def typed(controller: StudyController) -> tuple[Prompt, ...]:
    """One prompt per paragraph."""
    text = st.text_area(
        "Prompts, one per paragraph", **kept(controller, "study.typed", ""), height=160, max_chars=longest(),
        placeholder="Once upon a time\n\nQuestion: Tom has 3 apples",
        help="An empty line parts two prompts. Ctrl+Enter takes them over.",
    )  # fmt: skip
    parts = [part.strip("\n") for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n")) if part.strip()]
    return tuple(Prompt(checked(part, i), "typed") for i, part in enumerate(parts, 1))


def uploaded(controller: StudyController) -> tuple[Prompt, ...]:
    """Prompts of a file; they stay when the visitor leaves the page, and go with the file."""

    def removed() -> None:
        if st.session_state.get("study_file", "left") is None:  # of a page that is being left there is no state
            controller.file, controller.refused = (), ("", "")

    file = st.file_uploader(
        "Text, CSV or JSON", type=FILES, key="study_file", on_change=removed,
        max_upload_size=min(MAX_FILE, limits().upload or MAX_FILE) // 2**20,
        help="Text: an empty line parts prompts; without one every line is a prompt. JSON, JSONL and CSV: as in Spec-Bench (turns, "
        "category), ShareGPT (conversations), messages, Alpaca (instruction, input), GSM8K (question), HumanEval (prompt), or text "
        "and domain. Also packed with gzip.",
    )  # fmt: skip
    if file is not None and (not controller.file or controller.file[0] != file.file_id):
        read_once(controller, file)
    if not controller.file:
        return ()
    st.caption(as_markdown(f"{len(controller.file[2]):,} prompts of {plain(controller.file[1], 60)}."))
    return controller.file[2]


def read_once(controller: StudyController, file) -> None:
    """A file that cannot be read is not read again with every drawing of the page.

    Raises:
        ValueError: it cannot.
    """
    if controller.refused[0] != file.file_id:
        try:
            with reading():
                controller.file = (file.file_id, file.name, tuple(read_prompts(file.getvalue(), file.name)))
                return
        except Later:  # others are read first
            raise
        except ValueError as error:
            controller.refused = (file.file_id, told(error))
    raise ValueError(controller.refused[1])


def method_box(controller: StudyController, side: str) -> None:
    """One drafter: method, parameters, and a draft model of its own."""
    settings = settings_of(controller, side)
    lacking = lacking_methods(settings.target, settings.draft)
    with st.container(border=True, key=f"study_{side}"):
        drafters = [k for k in METHODS if k != "plain"]
        key = method_menu(controller, f"study.{side}.method", SIDES[side], lacking, f"Drafter {side}", menu=drafters)
        for spec in fields(METHODS[key].params):
            param_control(controller, f"{side}.{key}", spec)
        if limits().paths and (part := draft_part(key)):
            label, help = PARTS[part]
            boxed = kept(controller, f"study.{side}.{part}", "")
            st.text_input(as_markdown(label), **boxed, placeholder="the target’s own", help=as_markdown(help))


def draft_part(method: str) -> str:
    """What a drafter of this method may bring of its own beside the target: "draft", "head" (a published one), or nothing, ""."""
    from decoding.models.published_heads import FORMATS

    if any(one.part == "draft" for one in METHODS[method].requirements):
        return "draft"
    return "head" if method in FORMATS else ""


def models(controller: StudyController) -> None:
    """The target of both."""
    if not limits().paths:
        menu = limits().models or ()
        st.selectbox("Target", menu, **kept(controller, "study.target", EMBEDDED, menu), format_func=title_of)
        return
    st.text_input(
        "Target",
        **kept(controller, "study.target", EMBEDDED),
        help="embedded, embedded-small, embedded-hyper, smollm2, a model folder, a GGUF file, or a Hub id.",
    )
    memory_line(target_of(controller), value(controller, "study.dtype", "auto"))
    fetching_controls(HERE, target_of(controller), *(settings_of(controller, side).draft for side in SIDES))
    st.text_input(
        "Device",
        **kept(controller, "study.device", "auto"),
        help="auto, cpu, cuda, cuda:1 or mps; auto-map spreads a large target over all GPUs",
    )
    st.selectbox("Number format", DTYPES, **kept(controller, "study.dtype", "auto", DTYPES))
    st.caption("Models are loaded with the first prompt. Only safetensors are read and no code of a model is run.")


def target_of(controller: StudyController) -> str:
    return str(value(controller, "study.target", EMBEDDED)).strip() or EMBEDDED


def settings_of(controller: StudyController, side: str) -> Settings:
    """What the controls say of one drafter."""
    base = Settings()
    method = value(controller, f"study.{side}.method", SIDES[side])
    params = {f.name: value(controller, param_key(f"{side}.{method}", f.name), f.default) for f in fields(METHODS[method].params)}
    models = {name: str(value(controller, f"study.{name}", default)).strip() or default for name, default in MODELS.items()}
    part = draft_part(method)
    draft = str(value(controller, f"study.{side}.{part}", "")).strip() if part else ""
    return Settings(
        method=method,
        params=params,
        draft=draft or None,
        **{name: value(controller, f"study.{name}", getattr(base, name)) for name in SAMPLING},
        **models,
    )


def jobs(controller: StudyController, prompts: tuple[Prompt, ...]) -> tuple[Job, ...]:
    """One job per drafter, as the controls say."""
    sides = ("A", "B") if value(controller, "study.two", False) else ("A",)
    on = chat_on(controller, target_of(controller), CHAT)
    chat = str(value(controller, "study.template", "")) if on else None
    return tuple(job(settings_of(controller, side), prompts, side, chat) for side in sides)


def job(settings: Settings, prompts: tuple[Prompt, ...], side: str, chat: str | None = None) -> Job:
    """What one drafter is to do.

    Args:
        chat: options of the chat template, as they are written; None: the prompts are plain texts.
    """
    check_models(settings.target, settings.draft, settings.device, settings.dtype)  # before its files are looked at
    sampling = Sampling(settings.temperature, settings.top_k, settings.top_p)
    plan = Plan(
        family_of_plan(settings.target, settings.draft, settings.dtype),
        settings.method,
        prompts,
        params=settings.full_params,
        sampling=sampling,
        seed=settings.seed,
        max_tokens=settings.max_tokens,
        chat=chat is not None,
        template={} if chat is None else read_options(chat),
        stop=read_stops(settings.stop_tokens),
        ignore_end=settings.ignore_end,
    )
    return Job(f"{side}: {METHODS[settings.method].title}", settings, plan, plan.key)
