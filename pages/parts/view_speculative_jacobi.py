"""Speculative Jacobi decoding on the Step page: the same window; its guesses carry a q, which the inspector shows."""

from pages.parts.view_jacobi import view

__all__ = ["view"]
