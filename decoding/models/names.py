"""The names of the families that ship with the app; needs no torch, so that a page knows them before anything is loaded.

Folders are named from `decoding` on.
"""

HYPER = "embedded-hyper"
EMBEDDED_TARGETS = {  # all take the same draft models
    "embedded": "embedded/target",
    "embedded-small": "embedded/target-small",
    HYPER: "embedded/target-hyper",
}
IMAGE_TARGETS = {"digits": "digits/target", "shapes": "shapes/target"}  # their tokens are pixels
SHIPPED_TARGETS = {**EMBEDDED_TARGETS, **IMAGE_TARGETS}  # name -> folder
SHIPPED_DRAFTS = {  # whose draft model -> folder
    "embedded": "embedded/draft",
    HYPER: "embedded/draft-hyper",
    "smollm2": "embedded/smollm2/draft",
    **{name: f"{name}/draft" for name in IMAGE_TARGETS},
}
DRAFTS_OF = dict.fromkeys(EMBEDDED_TARGETS, "embedded") | {  # target -> whose draft model is its own
    name: name for name in (HYPER, "smollm2", *IMAGE_TARGETS)
}
HEADS_OF = {HYPER: "embedded"}  # target -> whose heads serve it, though they were trained on that one
