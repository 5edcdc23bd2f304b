"""Options: dataclass fields that carry their help and their limits, for code and command line alike.

A settings class declares each option once, with ``option``. Its values are checked when an instance
is made (``Settings``), and the command line derives flag, type and help from it (``add_arguments``).
"""

import argparse
import dataclasses
import math
import operator
import types
import typing
from dataclasses import dataclass, field, fields


def option(
    default: object,
    help: str,
    *,
    least: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> typing.Any:
    """A field with its help; a number must be at least ``least`` or greater than ``above``."""
    limits = {"help": help, "least": least, "above": above, "choices": choices}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class Settings:
    """Base of the settings classes: every option is converted to its type and checked.

    ValueError, one sentence that names the option and what it accepts, for a bad value.
    """

    def __post_init__(self):
        for name, kind in option_types(type(self)).items():
            value = checked(name, getattr(self, name), kind, _option(type(self), name).metadata)
            object.__setattr__(self, name, value)


def option_types(kind: type) -> dict[str, typing.Any]:
    """The type of every field that was declared with ``option``, in order."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind) if "help" in f.metadata}


def checked(name: str, value: object, kind: typing.Any, limits: typing.Mapping = {}) -> object:
    """``value`` as ``kind``: integral floats become integers, other misfits a ValueError."""
    if isinstance(kind, types.UnionType):
        return None if value is None else checked(name, value, typing.get_args(kind)[0], limits)
    if typing.get_origin(kind) is tuple:
        return _checked_tuple(name, value, typing.get_args(kind), limits)
    convert = {int: _integer, float: _number, bool: _boolean, str: _text}[kind]
    try:
        value = convert(value)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{name} is {value!r}; it must be {_NOUNS[kind]}.") from problem
    _check_limits(name, value, limits)
    return value


def add_arguments(parser: argparse.ArgumentParser, *kinds: type) -> None:
    """One flag for each option of the settings classes; a value that is not given is None.

    An option that several classes have becomes one flag, with the help of each.
    """
    found: dict[str, list[tuple[type, typing.Any]]] = {}
    for kind in kinds:
        for name, hint in option_types(kind).items():
            found.setdefault(name, []).append((kind, hint))
    for name, places in found.items():
        texts = dict.fromkeys(_help(_option(kind, name)) for kind, _ in places)
        hint = places[0][1]
        many = typing.get_origin(hint) is tuple
        base = typing.get_args(hint)[0] if many or isinstance(hint, types.UnionType) else hint
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=float if base in (int, float) else str,
            nargs=len(typing.get_args(hint)) if many else None,
            metavar="TEXT" if base is str else "N",
            help="; or ".join(texts),
        )


def _help(option_field: dataclasses.Field) -> str:
    choices = option_field.metadata["choices"]
    return option_field.metadata["help"] + (f": {', '.join(choices)}" if choices else "")


def _option(kind: type, name: str) -> dataclasses.Field:
    return next(f for f in fields(kind) if f.name == name)


def _checked_tuple(name: str, value: object, kinds: tuple, limits: typing.Mapping) -> tuple:
    if not isinstance(value, (tuple, list)) or len(value) != len(kinds):
        raise ValueError(f"{name} is {value!r}; it must be {len(kinds)} numbers.")
    return tuple(checked(name, v, k, limits) for v, k in zip(value, kinds, strict=True))


def _check_limits(name: str, value: object, limits: typing.Mapping) -> None:
    choices, least, above = (limits.get(limit) for limit in ("choices", "least", "above"))
    if choices and value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
    if least is not None and not value >= least:
        raise ValueError(f"{name} is {value!r}; it must be a number that is at least {least}.")
    if above is not None and not value > above:
        raise ValueError(f"{name} is {value!r}; it must be a number greater than {above}.")


def _integer(value: typing.Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool):
        raise TypeError(value)
    return operator.index(value)


def _number(value: typing.Any) -> float:
    if isinstance(value, (bool, str)) or not math.isfinite(number := float(value)):
        raise TypeError(value)
    return number


def _boolean(value: typing.Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _text(value: typing.Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


_NOUNS = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a text"}
