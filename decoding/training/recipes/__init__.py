"""How every method is trained, found by its file: adding one is adding a file.

A file `recipes/KEY.py` either ends in `RECIPE = Recipe(...)`, and `decoding.training.train` does the rest, or is a program of its
own with `main(arguments)`. `python -m decoding.training KEY` runs either.
"""

from importlib import import_module
from pkgutil import iter_modules

from decoding.training.recipe import Recipe

_modules = {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}
RECIPES: dict[str, Recipe] = {key: module.RECIPE for key, module in _modules.items() if hasattr(module, "RECIPE")}
PROGRAMS = {key: module.main for key, module in _modules.items() if hasattr(module, "main")}
