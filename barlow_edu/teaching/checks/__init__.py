"""Exercise checkers, by name: ``checks.cross_correlation(my_function)``; a module holds those of a few notebooks."""

from importlib import import_module
from pkgutil import iter_modules

from barlow_edu.teaching.checks.base import CHECKERS, NotRight, graded

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
globals().update(CHECKERS)
__all__ = ["NotRight", "graded", *CHECKERS]
