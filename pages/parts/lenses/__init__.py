"""The Lenses page: the run on one side, lenses on the other."""
