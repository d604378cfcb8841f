"""The names of the families that ship with the app; needs no torch, so that a page knows them before anything is loaded."""

EMBEDDED_TARGETS = {"embedded": "target", "embedded-small": "target-small"}  # name -> folder; both take the same draft models
DRAFTS_OF = dict.fromkeys(EMBEDDED_TARGETS, "embedded") | {"smollm2": "smollm2"}  # target -> whose draft model is its own
