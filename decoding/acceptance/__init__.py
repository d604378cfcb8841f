"""Acceptance rules beside those of `decoding.verify`, pure."""
