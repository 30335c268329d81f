"""Settings: what a value is by default, what it may be, how it is read from text, and what it does."""

import contextlib
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SWITCH = (True, False)
KINDS = {int: "a whole number", float: "a number", str: "text", dict: "'key: value' pairs"}
# YAML 1.1's words for what is true and false.
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Setting:
    """One setting, declared where it is used.

    kind: int, float, str, dict, tuple (as many numbers as the default has), or object for what its user checks.
    low, high: the least and the most a number may be. choices: all there are, where only some are possible; a
    mapping may grow later. null: whether it may be None. check_also(value): raises ValueError for what these do
    not see. inside: the settings of a dict. by_view: a tuple may also be two, one for each view.

    >>> Setting(3, "how many", int, low=1).read("epochs", "1e3")
    1000
    >>> Setting(3, "how many", int, low=1).check("epochs", 0)
    Traceback (most recent call last):
        ...
    ValueError: epochs must be a whole number of at least 1, got 0.
    """

    default: Any
    help: str
    kind: type = str
    low: float = -math.inf
    high: float = math.inf
    choices: Collection = ()
    null: bool = False
    check_also: Callable[[Any], None] | None = None
    inside: "Mapping[str, Setting] | None" = None
    by_view: bool = False

    @property
    def allowed(self) -> str:
        """What the setting may be, in words."""
        words = KINDS.get(self.kind, "a value")
        if self.kind is tuple:
            words = f"a list of {len(self.default)} numbers"
            words += ", or one for each view" * self.by_view
        if self.choices:
            words = f"one of {', '.join(map(str, self.choices))}"
        elif self.high < math.inf:
            words += f" between {self.low} and {self.high}"
        elif self.low > -math.inf:
            words += f" of at least {self.low}"
        return words + (", or null" if self.null else "")

    def check(self, name: str, value: Any) -> None:
        """Raises ValueError, with the name and what is possible, if the setting cannot have this value."""
        if value is None and self.null:
            return
        if not self._fits(value):
            shown = repr(value)
            shown = shown if len(shown) < 80 else f"a {type(value).__name__}"
            raise ValueError(f"{name} must be {self.allowed}, got {shown}.")
        if self.inside is not None:
            complete(self.inside, value, f"{name}.")
        if self.check_also is not None:
            self.check_also(value)

    def _fits(self, value: Any) -> bool:
        if self.choices:  # 1 equals True, and 1.0 too, but neither is a switch
            return any(type(value) is type(c) and value == c for c in self.choices)
        if self.kind is tuple:
            lists = for_each_view(value) if self.by_view and isinstance(value, list) else (value,)
            right = all(isinstance(v, list) and len(v) == len(self.default) for v in lists)
            return right and all(_is_number(v, float) for v in sum(lists, []))
        if self.kind in (int, float):
            return _is_number(value, self.kind) and self.low <= value <= self.high
        return isinstance(value, self.kind) and value != ""

    def read(self, name: str, text: str) -> Any:
        """The value that a text stands for; a text that is no such value is returned as it is, for ``check``.

        A setting that holds text takes it literally, whatever YAML would make of it. Raises ValueError for a dict
        that is not written in YAML.
        """
        if self.null and text in ("", "null") or self.kind is not str and text == "~":
            return None
        if self.kind is dict:
            try:
                return read_yaml(text)
            except yaml.YAMLError as error:
                problem = " ".join(str(error).split())
                raise ValueError(f"{name}: {text!r} is not YAML, {problem}.") from None
        if self.kind in (int, float):
            with contextlib.suppress(ValueError):
                return self.kind(text)
            with contextlib.suppress(ValueError):  # 1e3 is a whole number, too
                number = float(text)
                return int(number) if number.is_integer() else number
        if any(isinstance(choice, bool) for choice in self.choices):
            return WORDS.get(text.lower(), text)
        return text


def complete(
    table: Mapping[str, Setting], given: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Every setting of a table: the values given, the defaults for the others, all checked.

    Values become what YAML has (no numpy numbers, tuples or paths), so that they can be written, read and compared.
    prefix: before the names in messages. Raises ValueError for an unknown name and an impossible value.

    >>> complete({"lr": Setting(0.1, "the learning rate", float, low=0)}, {})
    {'lr': 0.1}
    """
    unknown = [name for name in given if name not in table]
    if unknown:
        names = ", ".join(sorted(f"{prefix}{name}" for name in unknown))
        near = did_you_mean(unknown, table)
        raise ValueError(f"Unknown setting {names}.{near} Known: {', '.join(table)}.")
    values = {name: plain(given.get(name, setting.default)) for name, setting in table.items()}
    for name, setting in table.items():
        if setting.kind is dict and values[name] is None:
            values[name] = {}
        setting.check(prefix + name, values[name])
    return values


def for_each_view(value: Sequence) -> tuple[Sequence, Sequence]:
    """The two lists of a pair of lists, one for each view; of any other list, such as [0.3, 1.0], itself twice."""
    pair = len(value) == 2 and all(isinstance(v, (tuple, list)) for v in value)
    return tuple(value) if pair else (value, value)


def plain(value: Any) -> Any:
    """The value as YAML has it."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for a word, 2024-13-45 for a wrong date, and the last of two equal keys. Here they are a
    number, a text and an error; so is ``<<``, which takes in what stands elsewhere.
    """

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0].endswith((":bool", ":int", ":float", ":null"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for wrong in {key for key in keys if keys.count(key) > 1 or key == "<<"}:
            what = "takes others in: write them out" if wrong == "<<" else "is given twice"
            raise yaml.constructor.ConstructorError(None, None, f"{wrong} {what}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Any:
    """Plain YAML, in which 1e-3 is a number. Raises yaml.YAMLError, also for a key that is given twice.

    >>> read_yaml("{lr: 1e-3, stem: cifar}")
    {'lr': 0.001, 'stem': 'cifar'}
    """
    return yaml.load(text, _Loader)


def read_settings(table: Mapping[str, Setting], text: str) -> dict[Any, Any]:
    """The settings in the text of a YAML file, each read by its own kind, so that ``root: 2024`` is a folder.

    Raises yaml.YAMLError for what is no YAML, and ValueError if it does not hold 'key: value' lines.
    """
    values, words = read_yaml(text), yaml.load(text, yaml.BaseLoader)  # as text
    if not isinstance(values, dict):
        raise ValueError("there are no settings as 'key: value' lines")
    scalars = {k: words[k] for k in values if k in table and isinstance(words[k], str)}
    return values | {k: table[k].read(k, word) for k, word in scalars.items()}


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


def _is_number(value: Any, kind: type) -> bool:
    number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # neither nan nor a whole number beyond inf
