"""Options of one suite, given as `--set name=value`, read into the suite's own dataclass."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nemo_ext.common.errors import ConfigError

Options = TypeVar("Options")
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
NAMES = {int: "a whole number", float: "a finite number", str: "text"}


def read_options(kind: type[Options], given: Mapping[str, str], suite: str) -> Options:
    """An instance of the dataclass `kind` with its defaults and what `given` says, every value of the type of its field.

    Types: str, int, float, bool, Literal of strings, tuple[str, ...] (separated by commas), and each of these `| None` ("none").
    Raises ConfigError for a name that `kind` has not, or a value that is not of its type.
    """
    types_of = get_type_hints(kind)
    known = {field.name: types_of[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"--set {name}: the suite {suite} has no such option. Its options: {listed}.")
    return kind(**{name: _value(known[name], text, f"--set {name}={text}") for name, text in given.items()})


def _value(kind: Any, text: str, given: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        return None if text.lower() == "none" else _value(next(part for part in get_args(kind) if part is not type(None)), text, given)
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise ConfigError(f"{given}: expected {' or '.join(get_args(kind))}.")
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() in BOOLEANS:
            return BOOLEANS[text.lower()]
        raise ConfigError(f"{given}: expected true or false.")
    try:
        value = kind(text)
    except ValueError:
        raise ConfigError(f"{given}: expected {NAMES[kind]}.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{given}: expected {NAMES[kind]}.")
    return value


def split_assignments(assignments: list[str]) -> dict[str, str]:
    """`name=value` pairs of a command line as a dict. Raises ConfigError for one without "=" and for a name given twice."""
    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {assignment}: expected NAME=VALUE.")
        if name in found:
            raise ConfigError(f"--set {name} is given twice ({found[name]} and {value}). Give it once.")
        found[name] = value
    return found
