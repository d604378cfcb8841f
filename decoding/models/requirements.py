"""What methods require of a family: a draft model, a trained head. Each says what is lacking, as a sentence, and how large it is.

A family may be a loaded one, or the stand-in of a page: an object with its `name` and `sources` (part -> the name that it will be
loaded by). Nothing is loaded to answer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoding.method import Method
from decoding.models import heads
from decoding.models.cache_folder import cache_folder
from decoding.models.names import HEADS_OF
from decoding.models.target import Target


@dataclass(frozen=True)
class DraftModel:
    """A second, cheaper model with the target's tokens."""

    words = "a draft model"
    part = "draft"

    def lacking(self, method: Any, family: Any) -> str:
        if family.draft is not None:
            return ""
        if getattr(family, "other_draft", None) is not None:
            return (
                f"{method.title} needs a draft model with the target's tokens, and that of the family {family.name} has another "
                "tokenizer. Universal assisted drafting and Byte drafting work with it."
            )
        return f"{method.title} needs a draft model, and the family {family.name} has none. Load one beside the target."

    def parameters(self, method: Method, family: Any) -> int:
        return family.draft.model.num_parameters()


@dataclass(frozen=True)
class AnyDraftModel:
    """A second, cheaper model with whatever tokens: what it writes is re-encoded for the target."""

    words = "a draft model with any tokenizer, re-encoded"
    part = "draft"

    def lacking(self, method: Any, family: Any) -> str:
        if getattr(family, "raster", None) is not None:
            return f"{method.title} has one model read what another wrote as text, and {family.name} draws pictures."
        if family.draft is not None or getattr(family, "other_draft", None) is not None:
            return ""
        return f"{method.title} needs a draft model, and the family {family.name} has none. Load one beside the target."

    def parameters(self, method: Method, family: Any) -> int:
        model = family.other_draft.model if family.other_draft else family.draft
        return model.model.num_parameters()


@dataclass(frozen=True)
class TrainedHead:
    """A small trained part that reads the states of one model of the family."""

    part: str = "target"  # or "draft"
    words = "a trained head"

    def lacking(self, method: Any, family: Any) -> str:
        """The sentence names the command that trains one. Of a model that is not loaded yet, a head is said to be lacking
        only if there is none for any model."""
        if self.there(method.key, family):
            return ""
        if getattr(family, "raster", None) is not None:
            return f"{method.title} needs a trained head, and there is none for the pictures of {family.name}."
        what = "draft model" if self.part == "draft" else "target"
        how = heads.command(method.key, family.name, self.part)
        return f"{method.title} needs a head that was trained for the {what} of the family {family.name}. This makes one: {how}."

    def there(self, key: str, family: Any) -> bool:
        if key in getattr(family, "heads", {}):  # a published one was loaded with it
            return True
        model = getattr(family, self.part, None)
        if isinstance(model, Target):
            return heads.find(key, model.model) is not None
        source = getattr(family, "sources", {}).get(self.part)
        source = HEADS_OF.get(source or "", source)
        if source in heads.SHIPPED_FOR and (heads.SHIPPED_FOR[source] / key).is_dir():
            return True
        return source is not None and any((cache_folder() / "heads").glob(f"*/{key}"))

    def parameters(self, method: Method, family: Any) -> int:
        if published := family.published_head(method.key):
            return sum(values.numel() for values in published.tensors.values())
        folder: Path | None = heads.find(method.key, getattr(family, self.part).model)
        return heads.parameters(folder) if folder else 0


def head_of(method: Method) -> str:
    """The part of a family that the method's trained head reads; "" if it has none."""
    return next((one.part for one in method.requirements if isinstance(one, TrainedHead)), "")


DRAFT_MODEL, ANY_DRAFT_MODEL = DraftModel(), AnyDraftModel()
TARGET_HEAD, DRAFT_HEAD = TrainedHead(), TrainedHead("draft")
