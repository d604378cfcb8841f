"""Pictures of one step: tree, text, probabilities."""
