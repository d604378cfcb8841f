"""Drafts out of text: suffix arrays, search, the default datastore."""
