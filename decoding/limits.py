"""Who may do what: the limits of a server, in one place.

`DRAFTSCOPE_MODE` is `local` (the default: one user, who may do everything) or `public` (a demo: strangers on one machine). Every
door of the backend asks here and refuses, with a sentence, what goes beyond; nothing is cut off in silence. What no mode allows
(the token limit of a trace, the size of a file) stays where it is.

`DRAFTSCOPE_MODELS` names, parted by commas, the models that a public server offers beside its own: Hub ids or folders.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from decoding.checks import Quoted

MODES = ("local", "public")
OWN = ("embedded", "embedded-small", "embedded-hyper", "smollm2", "digits", "shapes")  # of the catalogue, by a name of ours
COUNTED = {"nodes": "Tree size", "drafted": "Drafted nodes", "retrieved": "Retrieved nodes"}  # parameters that are nodes of a step


class Refused(Quoted):
    """What is asked for goes beyond the limits of this server."""


@dataclass(frozen=True)
class Rate:
    """So many at once, and so many per second after that."""

    at_once: int
    per_second: float


@dataclass(frozen=True)
class Pacing:
    """How many tabs may be open, how fast they may ask (`deploy/pace.py`), and what they have sent (`deploy/uploads.py`)."""

    tabs: int
    uploads: int  # bytes of their files that are held
    scripts: int  # that run at the same time: of pages and of fragments
    pages: Rate  # whole pages
    others: Rate  # fragments, and messages that run nothing
    sent: Rate  # bytes of all of these: whoever reads one looks at each part of it


class Common(NamedTuple):
    """What all visitors together may take of something."""

    most: int
    spare: int = 0  # of it, what is left for addresses that take no more than `least`
    least: int = 0


@dataclass(frozen=True)
class Whole:
    """What all visitors together may take: an address may have no more of it than what is left (`left_for`)."""

    tabs: Common = Common(2**40)  # that are open
    uploads: Common = Common(2**60)  # bytes of files that are held
    held: Common = Common(2**60)  # bytes of recorded steps in memory
    jobs: Common = Common(2**40)  # at work or in line
    scripts: int = 2**40  # that run at the same time
    caches: int = 2**60  # bytes of keys and values of runs
    serving: Rate = Rate(
        1, 1.0
    )  # milliseconds of a processor that pages and files take, of those who take more than `serving_little`
    arriving: Rate = Rate(1, 1.0)  # likewise, that the taking apart of what comes over their connections takes


@dataclass(frozen=True)
class Limits:
    """What one mode allows; None: no limit of its own."""

    mode: str = "local"
    models: tuple[str, ...] | None = None  # that may be loaded
    prompt: int | None = None  # characters, all messages of a chat together
    prompt_tokens: int | None = None  # of those
    prompt_at_once: int | None = None  # where the target reads all of them in one turn
    rows: int | None = None  # of a prompt that the target reads in one turn
    tokens: int | None = None  # of a run
    nodes: int | None = None  # drafted in one step
    at_once: int | None = None  # runs of one visitor that take turns; the columns of a comparison are one run
    jobs_each: int | None = None  # of one visitor that are at work or in line, every column counted
    jobs_near: int | None = None  # of all visitors at one address
    shares: int | None = None  # of the device's time that the visitors at one address have together, at most
    held: int | None = None  # bytes of recorded steps that a visitor's pages may keep in memory
    held_near: int | None = None  # and those of all visitors at one address
    caches: int | None = None  # bytes of keys and values that a visitor's runs may take, those that stand still included
    caches_near: int | None = None  # and those of all visitors at one address
    prompts: int | None = None  # of a study
    sweep: int | None = None  # runs of a swept parameter, all values and seeds together
    upload: int | None = None  # bytes of a trace file or a file of prompts, as they come
    unpacked: int | None = None  # bytes of a packed one once it is unpacked
    file_bytes: int | None = None  # of memory that the prompts of a file take; a tab keeps them
    brackets: int | None = None  # that begin a list or an object in a file whose form is known only when it is read
    said: int | None = None  # bytes of the texts of a trace: its prompt, messages and answer
    text: int | None = None  # tokens of its prompt and its answer
    scores: int | None = None  # of a method's own, of all its nodes together
    names: int | None = None  # different tokens that occur in it
    pieces: int | None = None  # bytes of those
    drafted: int | None = None  # bytes of its nodes' tokens, each as often as it was drafted
    kept: int | None = None  # runs that a visitor may keep
    kept_bytes: int | None = None  # that they may fill
    kept_days: int | None = None  # until they are forgotten
    keepers_near: int | None = None  # visitors at one address who begin to keep runs within a day
    look: int | None = None  # rows that the target reads for a look of a lens
    files: int | None = None  # that are made at the same time for one visitor who downloads them
    files_near: int | None = None  # and for all at one address
    link_steps: int | None = None  # steps that a link may take by itself; beyond, a click is asked for
    visitor: Pacing | None = None  # what the tabs of one visitor may ask for
    address: Pacing | None = None  # what those of all visitors at one address may
    whole: Whole = Whole()
    serving: tuple[Rate, ...] = ()  # milliseconds of a processor that pages and files take which one address asks for
    serving_little: Rate = Rate(1, 1.0)  # of them, what it has without waiting for others
    arriving: Rate = Rate(1, 1.0)  # likewise, that the taking apart of what comes over its connections takes
    arriving_little: Rate = Rate(1, 1.0)
    downloads: bool = True  # models may be fetched from a page
    datastores: bool = True  # may be built when a method asks for one
    paths: bool = True  # pages may name folders of the server

    @property
    def public(self) -> bool:
        return self.mode == "public"

    def allows(self, model: str | None) -> bool:
        """Whether a model may be loaded, or looked for, by this name."""
        return self.models is None or model is None or model in self.models

    @property
    def words(self) -> str:
        """What a visitor should know beforehand, in a line; "" where there is nothing to know."""
        if not self.public:
            return ""
        return (
            f"This demo: up to {self.tokens:,} tokens, prompts of up to {self.prompt:,} characters, trees of up to {self.nodes:,} "
            f"nodes, {self.at_once:,} runs at a time while others wait, studies of up to {self.prompts:,} prompts, sweeps of up to "
            f"{self.sweep:,} runs, files of up to {megabytes(self.upload)}. Kept runs are yours alone: up to {self.kept:,} of them "
            f"and {megabytes(self.kept_bytes)}, for {self.kept_days:,} days."
        )


LOCAL = Limits(link_steps=64)
PUBLIC = Limits(
    "public",
    models=OWN,
    prompt=4_000,
    prompt_tokens=1_280,
    prompt_at_once=512,
    rows=64,
    tokens=256,
    nodes=80,  # Token Recycling's published tree has as many
    at_once=2,
    jobs_each=8,  # a comparison has six columns
    jobs_near=200,  # a class of thirty that compares six columns each
    shares=4,
    held=160 * 2**20,  # the largest run that these limits allow takes half of it
    held_near=640 * 2**20,
    caches=640 * 2**20,  # six columns behind the longest prompt take that with the largest of our own models
    caches_near=768 * 2**20,
    prompts=20,
    sweep=16,
    upload=5 * 2**20,
    file_bytes=2 * 2**20,  # of 400 tabs 800 MB
    brackets=200_000,  # lists and objects, a second and 50 MB; the largest traces of the old schema have some 160,000
    unpacked=16 * 2**20,  # traces of runs unpack to some three times as much; reading takes up to ten times as much memory
    said=128 * 2**10,
    scores=250_000,  # every one is put in words for the page; 256 steps of 80 nodes by FTP have 225,000
    names=50_000,
    pieces=2**20,  # those of a vocabulary of 50,000 have a third of that
    drafted=2**19,  # 256 steps of 80 nodes have a fifth of that
    text=4_096,  # each is a line of the page, with two names
    kept=50,
    kept_bytes=25 * 2**20,
    kept_days=30,
    keepers_near=200,  # so many times `kept_bytes`, which one address may fill in a day
    look=2_048,
    files=2,
    files_near=8,
    link_steps=0,
    visitor=Pacing(
        tabs=12, uploads=30 * 2**20, scripts=2, pages=Rate(40, 1.0), others=Rate(100, 15.0), sent=Rate(4 * 2**20, 2**18)
    ),
    address=Pacing(  # a class or two; more pages than run in its places, where visitors take turns: here they wait in one line
        tabs=160, uploads=150 * 2**20, scripts=3, pages=Rate(1000, 80.0), others=Rate(1000, 80.0), sent=Rate(16 * 2**20, 2**21)
    ),
    # With some 7 MB for a tab: beside the models it is what the memory of deploy/ takes.
    whole=Whole(
        tabs=Common(420, spare=40, least=4),
        uploads=Common(400 * 2**20, spare=40 * 2**20, least=6 * 2**20),
        held=Common(1_280 * 2**20),
        jobs=Common(360, spare=40, least=6),
        scripts=3,
        caches=2**30,
        serving=Rate(100, 1_000.0),
        arriving=Rate(50, 400.0),
    ),  # fmt: skip
    serving=(Rate(400, 500.0), Rate(60_000, 200.0)),  # of each second no more than half; a class of 80 has its pages in a minute
    serving_little=Rate(400, 50.0),  # a first visit takes some 380, with 111 files
    arriving=Rate(50, 300.0),
    arriving_little=Rate(50, 30.0),
    downloads=False,
    datastores=False,
    paths=False,
)


def limits() -> Limits:
    """Those of this process; read anew each time, which is cheap.

    Raises:
        ValueError: `DRAFTSCOPE_MODE` is neither; nothing is allowed then.
    """
    mode = os.environ.get("DRAFTSCOPE_MODE", "").strip() or "local"
    if mode not in MODES:
        raise ValueError(f"DRAFTSCOPE_MODE must be local or public; it is {mode!r}.")
    if mode == "local":
        return LOCAL
    named = tuple(name.strip() for name in os.environ.get("DRAFTSCOPE_MODELS", "").split(",") if name.strip())
    return Limits(**{**vars(PUBLIC), "models": (*OWN, *named)}) if named else PUBLIC


CLASSES = Common(200, spare=20, least=2)  # on a server at a time, each in memory with the votes of its tabs
CLASSES_NEAR = 20  # of them opened at one address of a public server: a link with a made-up code opens one, too
CLASS_TABS = 300  # of a class that vote
CLASS_HOURS = 4  # until a class is forgotten that nobody looked at


def megabytes(count: int | None) -> str:
    return f"{(count or 0) / 2**20:g} MB"


def over(value: int, most: int | None) -> bool:
    return most is not None and value > most


def left_for(most: int, whole: Common, taken: int) -> int:
    """What an address may have, which has at most `most`, of a whole that all have taken so much of: no more than what is left. So
    each that takes all it can leaves half of what was there for whoever comes, and ten that do leave what they may not have.

    >>> tabs = Common(420, spare=20, least=4)
    >>> [left_for(160, tabs, taken) for taken in (0, 300, 400, 418, 420)]
    [160, 100, 4, 2, 0]
    """
    return max(0, min(most, whole.most - whole.spare - taken), min(most, whole.least, whole.most - taken))


# -- the doors ------------------------------------------------------------------------------------------------------------


def check_models(target: str, draft: str | None = None, device: str = "auto", dtype: str = "auto") -> None:
    """Refuse a model that is not offered, and a device or format of the visitor's choice. Looks at no disk."""
    rules = limits()
    for what, name in (("target", target), ("draft model", draft)):
        if not rules.allows(name):
            raise Refused(
                f"This demo offers the models {', '.join(rules.models or ())}; the {what} “{str(name)[:60]}” is none of them."
            )
    if rules.public and (device, dtype) != ("auto", "auto"):
        raise Refused(f"This demo chooses device and number format itself; “{device[:20]}” and “{dtype[:20]}” were asked for.")


def check_tokens(count: int) -> None:
    if over(count, most := limits().tokens):
        raise Refused(f"This demo writes at most {most:,} tokens in a run; the token limit is {count:,}.")


def check_prompt(characters: int) -> None:
    if over(characters, most := limits().prompt):
        raise Refused(f"This demo reads prompts of at most {most:,} characters; this one has {characters:,}.")


def check_prompt_tokens(count: int, *, at_once: bool = False) -> None:
    """Of a prompt; `at_once`: the target reads all of them in one turn, for which others wait."""
    if at_once and over(count, most := limits().prompt_at_once):
        raise Refused(
            f"This demo reads prompts of at most {most:,} tokens with a method that reads them in one turn; this one has {count:,}."
        )
    if over(count, most := limits().prompt_tokens):
        raise Refused(f"This demo reads prompts of at most {most:,} tokens; this one has {count:,}.")


def check_nodes(count: int) -> None:
    """Of one step's draft."""
    if over(count, most := limits().nodes):
        raise Refused(f"This demo reads at most {most:,} drafted tokens per step; this draft has {count:,}. Choose a smaller tree.")


def check_params(params: Mapping[str, Any]) -> None:
    """Refuse parameters that ask for more nodes than a step may have; what they grow into is checked when it is there."""
    counted = {name: value for name, value in params.items() if name in COUNTED and isinstance(value, int)}
    if over(sum(counted.values()), most := limits().nodes):
        said = " and ".join(f"{COUNTED[name]} {value:,}" for name, value in counted.items())
        raise Refused(f"This demo reads at most {most:,} drafted tokens per step; {said} are more.")


def check_prompts(count: int) -> None:
    """Of a study."""
    if over(count, most := limits().prompts):
        raise Refused(
            f"This demo studies at most {most:,} prompts at a time; there are {count:,}. Take fewer under “At most so many”."
        )


def check_sweep(count: int) -> None:
    """Of a swept parameter: its values times its seeds."""
    if over(count, most := limits().sweep):
        raise Refused(f"This demo sweeps a parameter in at most {most:,} runs; these are {count:,}. Take fewer points or seeds.")


def check_look(rows: int) -> None:
    """Of a lens: the rows that the target reads for it."""
    if over(rows, most := limits().look):
        raise Refused(f"This demo reads at most {most:,} rows for a look; this one takes {rows:,}. Look at a shorter text.")


def check_upload(size: int) -> None:
    if over(size, most := limits().upload):
        raise Refused(f"This demo reads files of at most {megabytes(most)}; this one has {size / 2**20:.1f} MB.")


def check_file(prompts: int, size: int) -> None:
    """Of a file of prompts: so many of them were read, and take so many bytes of memory."""
    if over(size, most := limits().file_bytes):
        raise Refused(
            f"This demo reads files whose prompts take at most {megabytes(most)} of memory; the first {prompts:,} of this one take "
            f"{size / 2**20:.1f} MB. Take some of them out."
        )


def check_brackets(text: str | bytes) -> None:
    """Before JSON is read of which nothing is known: how many lists and objects it has at most. All visitors wait until they are
    made."""
    brackets = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if over(brackets, most := limits().brackets):
        raise Refused(f"This demo reads files with at most {most:,} brackets, [ and {{; this one has {brackets:,}.")


def check_files(own: int, near: int) -> None:
    """Before another one is made for a visitor to download: how many are being made for them, and for all at the same address."""
    rules = limits()
    if rules.files is not None and own >= rules.files:
        raise Refused(f"This demo makes at most {rules.files:,} files at a time for one visitor. Wait until those are there.")
    if rules.files_near is not None and near >= rules.files_near:
        raise Refused(f"This demo makes at most {rules.files_near:,} files at a time for one network. Wait until those are there.")


def check_datastore() -> None:
    """Before one is built."""
    if not limits().datastores:
        raise Refused("This demo builds no datastores, and there is none for this model yet. Choose a method without one.")


def check_download(name: str) -> None:
    """Before a model is fetched."""
    if not limits().downloads:
        raise Refused(f"This demo fetches no models; “{name[:60]}” is not here.")


def check_jobs(own: int, near: int, all: int) -> None:
    """Before another one begins or goes on: how many of the visitor's, of those at the same address, and of all are at work or in
    line."""
    rules = limits()
    if rules.jobs_each is not None and own >= rules.jobs_each:
        raise Refused(
            f"You have {own:,} runs at work or in line, as many as this demo takes from one visitor. Stop one, or wait for its end."
        )
    if rules.jobs_near is None or near < (left := left_for(rules.jobs_near, rules.whole.jobs, all)):
        return
    if left or near >= rules.jobs_near:
        raise Refused(
            f"This demo works for {near:,} runs of your network now, as many as it takes from one. Try again in a minute."
        )
    raise Refused(f"This demo works for {all:,} runs now, as many as it can. Try again in a minute.")


def check_held(own: int, near: int = 0, all: int = 0, part: int = 0) -> None:
    """Of what the pages of a visitor show, those of all visitors at the same address, and all: the bytes that its steps take.

    Args:
        part: that an address may have however much others do.
    """
    rules = limits()
    if over(own, rules.held):
        raise Refused(
            f"The runs on your pages hold {own / 2**20:,.0f} MB, and this demo remembers {megabytes(rules.held)} for one visitor. "
            "Press Reset on Step and Compare, or close the tabs that you need no more."
        )
    if rules.held_near is None:
        return
    most = max(min(part, rules.held_near), left_for(rules.held_near, rules.whole.held, all))
    if near > most:
        raise Refused(
            f"The runs on the pages of your network hold {near / 2**20:,.0f} MB, and this demo has room for {most / 2**20:,.0f} of "
            "one now. Press Reset on Step and Compare, or close the tabs that you need no more."
        )


class Sizes(NamedTuple):
    """How much there is in a trace, or in a part of one."""

    steps: int
    nodes: int  # of its largest draft
    said: int  # bytes of its prompt, its messages and its answer, as tokens and as texts; a token counts as one at least
    text: int  # tokens of its prompt and its answer
    scores: int  # of a method's own, of all nodes
    names: int  # different tokens
    pieces: int  # bytes of those
    drafted: int  # bytes of its nodes' tokens, each as often as it was drafted


IN_WORDS = {
    "said": "bytes in their texts",
    "text": "tokens with the prompt",
    "scores": "scores of nodes",
    "names": "different tokens",
    "pieces": "bytes in their different tokens",
    "drafted": "bytes in their drafted tokens",
}


def check_trace(found: Sizes) -> None:
    """Of a trace that is opened or kept."""
    if over(found.steps, most := limits().tokens):
        raise Refused(f"This demo opens and keeps runs of at most {most:,} steps; this one has {found.steps:,}.")
    check_nodes(found.nodes)
    for what, words in IN_WORDS.items():
        if over(count := getattr(found, what), most := getattr(limits(), what)):
            raise Refused(f"This demo opens and keeps runs with at most {most:,} {words}; this one has {count:,}.")


def check_keepers(near: int) -> None:
    """Before a visitor keeps a first run: how many at the same address have begun to within a day."""
    if (most := limits().keepers_near) is not None and near >= most:
        raise Refused(f"This demo keeps runs for at most {most:,} new visitors of one network a day. Export the run as a file.")


def check_kept(runs: int, size: int) -> None:
    """Before another run is kept: how many there are, and the bytes that they fill, or will with it."""
    rules = limits()
    if rules.kept is not None and runs >= rules.kept:
        raise Refused(f"You have kept {runs:,} runs, as many as this demo keeps for you. Delete some on the page Traces.")
    if over(size, rules.kept_bytes):
        raise Refused(
            f"This demo keeps {megabytes(rules.kept_bytes)} of runs for you; yours would fill {size / 2**20:,.1f} MB. Delete some "
            "on the page Traces."
        )
