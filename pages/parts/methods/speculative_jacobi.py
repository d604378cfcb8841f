"""Speculative Jacobi decoding on the Step page: the same window; its guesses carry a q, which the inspector shows."""

from pages.parts.methods.jacobi import view

__all__ = ["view"]
