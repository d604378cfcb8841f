"""METHODS: every file of this package, by key. Adding a method is adding a file."""

from importlib import import_module
from pkgutil import iter_modules

from decoding.method import Method

METHODS: dict[str, Method] = {
    method.key: method
    for method in sorted(
        (import_module(f"{__name__}.{module.name}").METHOD for module in iter_modules(__path__)),
        key=lambda method: (method.year, method.key),
    )
}
