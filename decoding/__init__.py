"""Draftscope's backend: speculative decoding, one target call at a time. It knows no user interface."""
