"""RECIPES: how the heads of every method that grow on the target are trained, found by their files: adding one is adding a file.

A file `recipes/KEY.py` ends in `RECIPE = Recipe(...)`; `python -m decoding.training.heads KEY` does the rest.
"""

from importlib import import_module
from pkgutil import iter_modules

from decoding.training.recipe import Recipe

RECIPES: dict[str, Recipe] = {module.name: import_module(f"{__name__}.{module.name}").RECIPE for module in iter_modules(__path__)}
