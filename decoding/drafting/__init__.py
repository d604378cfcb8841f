"""How drafts grow: from a draft model, as chains and trees, sampled or chosen."""
