"""What a language model is to the rest: families, targets, caches, heads, checkpoints."""
