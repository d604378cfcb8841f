"""The names of the families that ship with the app; needs no torch, so that a page knows them before anything is loaded.

Folders are named from `decoding` on.
"""

EMBEDDED_TARGETS = {"embedded": "embedded/target", "embedded-small": "embedded/target-small"}  # both take the same draft models
IMAGE_TARGETS = {"digits": "digits/target", "shapes": "shapes/target"}  # their tokens are pixels
SHIPPED_TARGETS = {**EMBEDDED_TARGETS, **IMAGE_TARGETS}  # name -> folder
SHIPPED_DRAFTS = {  # whose draft model -> folder
    "embedded": "embedded/draft",
    "smollm2": "embedded/smollm2/draft",
    **{name: f"{name}/draft" for name in IMAGE_TARGETS},
}
DRAFTS_OF = dict.fromkeys(EMBEDDED_TARGETS, "embedded") | {  # target -> whose draft model is its own
    name: name for name in ("smollm2", *IMAGE_TARGETS)
}
