"""Widgets that several pages need; not listed as pages."""
