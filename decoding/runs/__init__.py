"""Runs and what becomes of them: worker, store, files, studies, evaluation."""
