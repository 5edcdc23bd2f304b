"""Options: dataclass fields with help and limits, for the code and for the command line.

A settings class declares each option once. Its values are checked when an instance is made, and
the command line derives flag, type and help from the declaration.
"""

import argparse
import math
import operator
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from numbers import Integral, Real

NOUNS = {int: "a whole number", float: "a finite number", str: "a string", bool: "True or False"}
LIMITS = {  # how a value is compared with each, and how an error says so
    "least": (operator.ge, "that is at least"),
    "most": (operator.le, "that is at most"),
    "above": (operator.gt, "greater than"),
    "below": (operator.lt, "below"),
}


def option(
    default: object, help: str, *, choices: tuple[str, ...] = (), **limits: int | float
) -> typing.Any:
    """A dataclass field with its help, and its choices or any of the ``LIMITS`` of its value."""
    if unknown := limits.keys() - LIMITS:
        raise TypeError(f"an option has no limit {min(unknown)!r}")
    about = {"help": help, "default": default, "choices": choices}
    return field(default=default, metadata=about | limits)


@dataclass(frozen=True)
class Settings:
    """Base of the settings classes: every option is converted to its type and checked.

    A bad value is a ValueError that names the option and what it accepts.
    """

    def __post_init__(self):
        for name, (kind, limits) in options(type(self)).items():
            object.__setattr__(self, name, checked(name, getattr(self, name), kind, limits))


@cache
def options(kind: type) -> dict[str, tuple[typing.Any, Mapping]]:
    """The type, and the help and limits, of every option of a settings class by its name."""
    hints = typing.get_type_hints(kind)
    return {f.name: (hints[f.name], f.metadata) for f in fields(kind) if "help" in f.metadata}


def checked(name: str, value: typing.Any, kind: typing.Any, limits: Mapping) -> object:
    """``value`` as ``kind``: integral floats become integers; any other misfit is a ValueError."""
    if isinstance(kind, types.UnionType):
        return None if value is None else checked(name, value, typing.get_args(kind)[0], limits)
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        if not isinstance(value, (tuple, list)) or len(value) != len(kinds):
            raise ValueError(f"{name} is {value!r}; it must be {len(kinds)} numbers.")
        return tuple(checked(name, v, k, limits) for v, k in zip(value, kinds, strict=True))
    if not _fits(value, kind):
        raise ValueError(f"{name} is {value!r}; it must be {NOUNS[kind]}.")
    value = kind(value)
    if (choices := limits.get("choices")) and value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
    for limit, (holds, words) in LIMITS.items():
        if limit in limits and not holds(value, limits[limit]):
            raise ValueError(f"{name} is {value!r}; it must be a number {words} {limits[limit]}.")
    return value


def add_arguments(parser: argparse._ActionsContainer, *kinds: type, defaults: bool = False) -> None:
    """Add a flag for each option of the settings classes; its value is None if it is not given.

    An option that several classes have becomes one flag, with the help of each. With ``defaults``
    the help says each default.
    """
    hints, helps = {}, {}
    for name, (hint, limits) in (item for kind in kinds for item in options(kind).items()):
        text, default = limits["help"], limits["default"]
        text += f": {', '.join(limits['choices'])}" if limits["choices"] else ""
        has_one = defaults and default not in (None, "") and hint is not bool
        text += f" (default: {default})" if has_one else ""
        hints[name] = hint
        helps.setdefault(name, {})[text.replace("%", "%%")] = None  # each once, in order
    for name, hint in hints.items():
        is_tuple = typing.get_origin(hint) is tuple
        base = typing.get_args(hint)[0] if typing.get_args(hint) else hint
        flag, text = f"--{name.replace('_', '-')}", "; or ".join(helps[name])
        if base is bool:
            parser.add_argument(flag, action="store_true", default=None, help=text)
            continue
        parser.add_argument(
            flag,
            type=str if base is str else number,
            nargs=len(typing.get_args(hint)) if is_tuple else None,
            metavar="TEXT" if base is str else "N",
            help=text,
        )


def number(text: str) -> int | float:
    """The number of a text; whole ones stay exact, as a float would not keep a large seed."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _fits(value: typing.Any, kind: type) -> bool:
    if kind in (str, bool) or isinstance(value, (bool, str)):
        return isinstance(value, kind) and kind in (str, bool)
    if kind is int:
        return isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
