"""Exercise checkers, by name: ``checks.cross_correlation(my_function)``.

Each module holds the checkers of a few notebooks; all of them are found here.
"""

from importlib import import_module
from pkgutil import iter_modules

from barlow_edu.teaching.checks.base import NotRight

__all__ = ["NotRight"]
for _found in iter_modules(__path__):
    _module = import_module(f"{__name__}.{_found.name}")
    for _name in getattr(_module, "CHECKERS", ()):
        globals()[_name] = getattr(_module, _name)
        __all__.append(_name)
