# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the fields of a config hold what their annotations say.

Dataclasses take any value; without this a text where a number belongs is found
out by whatever first computes with it.
"""

import collections.abc
import dataclasses
import functools
import numbers
import types as pytypes
import typing
from typing import Any

from jdistill import types

_NUMBERS = {float: numbers.Real, int: numbers.Integral}


def check(config: Any, where: str) -> None:
  """Looks at all fields of a config, and of what it is made of.

  Args:
    config: a dataclass, or a dict or tuple of them.
    where: begins the message, such as a file's name.
  Raises: UserError that names the first field of another type.
  """
  if said := _faults_below(config, ""):
    raise types.UserError(f"{where}: {said}")


def fault(cls: type, field: str, value: Any) -> str | None:
  """What is wrong with the value of one field of a class; None if nothing."""
  hint = _hints(cls).get(field, Any)
  return _fault(value, hint, field) or _faults_below(value, field)


def _faults_below(value: Any, path: str) -> str | None:
  """The first fault in what a value is made of."""
  inside: dict[str, Any] = {}
  hints: dict[str, Any] = {}
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    hints = _hints(type(value))
    inside = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
  elif isinstance(value, dict):
    inside = {str(k): v for k, v in value.items()}
  elif isinstance(value, tuple):
    inside = {str(i): v for i, v in enumerate(value)}
  for name, one in inside.items():
    below = f"{path}.{name}" if path else name
    said = _fault(one, hints.get(name, Any), below) or _faults_below(one, below)
    if said:
      return said
  return None


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
  """The annotations of a class; of what is not jdistill's own nothing."""
  if not cls.__module__.startswith("jdistill."):
    return {}
  return typing.get_type_hints(cls)


def _fault(value: Any, hint: Any, path: str) -> str | None:
  """What is wrong with a value where a type is expected."""
  members = _members(hint)
  if any(_is(value, one) for one in members):
    inside = [one for one in members if _is(value, one)]
    found = [_fault_inside(value, one, path) for one in inside]
    return None if None in found else found[0]
  if isinstance(value, type):
    kinds = [one for one in members if isinstance(one, type)]
    fits = any(issubclass(value, one) for one in kinds)
    called = f", such as {value.__name__}(...)" if fits else ""
    expected = f"expected {_shown(members)}{called}"
    return f"{path} is the class {value.__name__}; {expected}"
  return f"{path} is {_short(value)}; expected {_shown(members)}"


def _members(hint: Any) -> tuple[Any, ...]:
  """The types that a union offers."""
  if typing.get_origin(hint) in (typing.Union, pytypes.UnionType):
    return tuple(m for one in typing.get_args(hint) for m in _members(one))
  return (hint,)


def _is(value: Any, hint: Any) -> bool:
  """Whether a value is of a type that is no union, whatever is inside."""
  origin = typing.get_origin(hint) or hint
  if origin is typing.Literal:
    return any(value is a or value == a for a in typing.get_args(hint))
  if origin in (None, pytypes.NoneType):
    return value is None
  if origin in _NUMBERS:
    return isinstance(value, _NUMBERS[origin]) and not isinstance(value, bool)
  if origin is collections.abc.Callable:
    return callable(value)
  if not isinstance(origin, type):
    return True
  try:
    return isinstance(value, origin)
  except TypeError:  # a protocol
    return True


def _fault_inside(value: Any, hint: Any, path: str) -> str | None:
  """What is wrong with the entries of a dict or a tuple."""
  args = typing.get_args(hint)
  if isinstance(value, dict) and len(args) == 2:
    entries = [(f"{path}.{k}", v, args[1]) for k, v in value.items()]
    keys = [_fault(k, args[0], f"a name in {path}") for k in value]
  elif isinstance(value, tuple) and args:
    kinds = args if args[-1] is not ... else args[:1] * len(value)
    if len(kinds) != len(value):
      return f"{path} has {len(value)} entries; expected {len(kinds)}"
    entries = [(f"{path}.{i}", v, k) for i, (v, k) in
               enumerate(zip(value, kinds, strict=True))]  # fmt: skip
    keys = []
  else:
    return None
  found = [*keys, *(_fault(v, kind, name) for name, v, kind in entries)]
  return next(filter(None, found), None)


def _shown(members: tuple[Any, ...]) -> str:
  """Types as people say them."""
  said = []
  for one in members:
    origin, args = typing.get_origin(one), typing.get_args(one)
    if origin is typing.Literal:
      said += map(repr, args)
    elif one in (None, pytypes.NoneType):
      said.append("None")
    elif origin is dict:
      said.append(f"a dict of {_shown(_members(args[1]))} by name")
    elif origin is tuple:
      said.append(f"a tuple of {_shown(_members(args[0]))}")
    else:
      said.append(getattr(origin or one, "__name__", str(one)))
  return " or ".join(dict.fromkeys(said))


def _short(value: Any) -> str:
  """A value as it was written, or its class."""
  if dataclasses.is_dataclass(value):
    return f"a {type(value).__name__}"
  text = repr(value)
  return text if len(text) < 60 else f"a {type(value).__name__}"
