"""For who mistypes a name: the one that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(names: str | Iterable[object], known: Iterable[str]) -> str:
    """ " Did you mean lambd?" for "lambda" and the names there are; "" where none is near.

    names: one, or several of which the first with a near one counts.
    """
    known = list(known)
    for name in [names] if isinstance(names, str) else sorted(map(str, names)):
        near = get_close_matches(name, known, 1)
        if near:
            return f" Did you mean {near[0]}?"
    return ""
