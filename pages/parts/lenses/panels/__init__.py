"""What a lens shows beyond sentence, figure and table: the panel of the lens X is `view(look)` in `X.py`, found by name."""
