"""The second model of the byte views: the family's draft model if it has tokens of its own, else a small one that ships.

The shipped one (`decoding.training.recipes.byte_drafting`) has 1,024 tokens and serves any family whose tokenizer writes bytes.
"""

from functools import cache
from typing import Any

import torch

from decoding.models.draft_tokens import OtherDraft
from decoding.models.family import EMBEDDED, Family, open_model
from decoding.models.speller import lacking as unspelled

SHIPPED = EMBEDDED / "bytes"


def find(family: Family) -> OtherDraft:
    """The draft model of the family if it has another tokenizer, else the one that ships for all."""
    return family.other_draft or shipped(family.target.device)


@cache
def shipped(device: torch.device) -> OtherDraft:
    """The shipped model; one for all families."""
    tokenizer, model, _ = open_model(str(SHIPPED), device, "float32" if device.type == "cpu" else "auto")
    return OtherDraft(model, tokenizer)


def lacking(family: Any) -> str:
    """Why two models cannot meet in bytes here, as a sentence; "" if they can."""
    if reason := unspelled(family):
        return reason
    other = family.other_draft
    return unspelled(Family(f"the draft model of {family.name}", other.tokenizer, other.model)) if other else ""
