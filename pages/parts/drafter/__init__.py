"""The Drafter page."""
