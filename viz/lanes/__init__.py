"""Runs side by side on one clock."""
