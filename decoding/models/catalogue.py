"""The catalogue: models that are known to work, the first the one to begin with. Needs no torch: pages and commands list from it.

A name of the catalogue that is no Hub id can be loaded by it; what is shipped is there already, the rest is fetched once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Origin = Literal["shipped", "package", "hub"]
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Model:
    """A target, and what goes with it."""

    name: str  # to load it by
    title: str
    what: str  # in a sentence
    origin: Origin
    parameters: int
    licence: str
    download: int = 0  # bytes; 0: nothing to download, or the Hub is asked
    disk: int = 0  # bytes when it is there; 0: as many as are downloaded
    chat: bool = False  # has a chat template
    drafts: tuple[str, ...] = ()  # draft models with its tokenizer
    heads: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # method -> Hub id of a published head
    draws: bool = False  # an image family: its tokens are pixels


SMOLLM2 = Model(
    "smollm2",
    "SmolLM2 135M Instruct",
    "The smallest model that answers sensibly; runs on any machine. A draft model and nine heads for it ship with Draftscope.",
    "package",
    134_515_008,
    "Apache-2.0",
    download=92_871_040,
    disk=273_000_000,
    chat=True,
)
SHIPPED = (
    Model(
        "embedded",
        "embedded",
        "A toy that ships with Draftscope: simple stories and simple code, with a draft model and every trained head.",
        "shipped",
        10_541_312,
        "Apache-2.0",
        drafts=("embedded", "embedded-hyper"),
    ),
    Model(
        "embedded-small",
        "embedded, small",
        "A third of its weights; the same draft models serve it.",
        "shipped",
        3_421_952,
        "Apache-2.0",
        drafts=("embedded",),
    ),
    Model(
        "embedded-hyper",
        "embedded, hyperfitted",
        "The embedded target, trained on 200 pieces of stories until it knew them by heart; its draft model knows them too.",
        "shipped",
        10_541_312,
        "Apache-2.0",
        drafts=("embedded", "embedded-hyper"),
    ),
    Model(
        "digits",
        "digits, pictures",
        "Handwritten digits of 8 x 8 pixels in eight greys: every token is a pixel, and the prompt is a digit.",
        "shipped",
        446_880,
        "Apache-2.0, trained on data under CC BY 4.0",
        draws=True,
    ),
    Model(
        "shapes",
        "shapes, coloured pictures",
        "Drawn shapes of 12 x 12 pixels in sixteen colours, asked for in words: red circle on blue.",
        "shipped",
        354_912,
        "Apache-2.0",
        draws=True,
    ),
)
ON_THE_HUB = (
    Model(
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "SmolLM2 360M Instruct",
        "With smollm2 itself as its draft model.",
        "hub",
        361_821_120,
        "Apache-2.0",
        chat=True,
        drafts=("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2"),
    ),
    Model(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        "SmolLM2 1.7B Instruct",
        "Good answers on a laptop, and a draft model a twelfth of its size.",
        "hub",
        1_711_376_384,
        "Apache-2.0",
        chat=True,
        drafts=("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ),
    Model(
        "Qwen/Qwen2.5-1.5B-Instruct",
        "Qwen2.5 1.5B Instruct",
        "Many languages; its smaller sister drafts for it.",
        "hub",
        1_543_714_304,
        "Apache-2.0",
        chat=True,
        drafts=("Qwen/Qwen2.5-0.5B-Instruct",),
    ),
    Model(
        "Qwen/Qwen3-1.7B",
        "Qwen3 1.7B",
        "Thinks before it answers, or not, as its template is told.",
        "hub",
        1_720_574_976,
        "Apache-2.0",
        chat=True,
        drafts=("Qwen/Qwen3-0.6B",),
    ),
    Model(
        "Qwen/Qwen3-8B",
        "Qwen3 8B",
        "For a GPU: a draft model and a published EAGLE-3 head to compare.",
        "hub",
        8_190_735_360,
        "Apache-2.0",
        chat=True,
        drafts=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"),
        heads=MappingProxyType({"eagle": "RedHatAI/Qwen3-8B-speculator.eagle3"}),
    ),
)
MODELS = {model.name: model for model in (SMOLLM2, *SHIPPED, *ON_THE_HUB)}
PAIRS = tuple((model, other) for model in ON_THE_HUB for other in (*model.drafts, *model.heads.values()))  # and what drafts for it
HEADS = {head: method for model in MODELS.values() for method, head in model.heads.items()}  # Hub id of a published head -> method
NAMED = tuple(name for name, model in MODELS.items() if model.origin != "hub")  # loaded by a name of ours, not of the Hub
