# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Configs as JSON: every object tagged by its public name, nothing executed."""

import dataclasses
import re
from typing import Any

from jdistill import config_types, types

TYPE = "type"


def encode(value: Any) -> Any:
  """Plain JSON values for a tree of dataclasses, dicts, tuples and scalars.

  A dataclass becomes `{"type": "jdistill.methods.KD", field: ...}`. An object
  that is no dataclass of jdistill is kept by its name and text: it can be
  compared and read by people, not rebuilt.
  """
  if isinstance(value, (list, tuple)):
    return [encode(v) for v in value]
  if isinstance(value, dict):
    return {str(k): encode(v) for k, v in value.items()}
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  name = public_name(type(value))
  if dataclasses.is_dataclass(value) and name is not None:
    fields = {
      f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)
    }
    return {TYPE: name, **fields}
  cls = type(value)
  # Functions print where they lie in memory, which differs at every start.
  text = re.sub(r" at 0x[0-9a-f]+", "", str(value))
  return {"own": f"{cls.__module__}.{cls.__qualname__}", "text": text}


def call(tree: Any) -> str:
  """An object of encoded JSON as one would write it, short."""
  if isinstance(tree, dict) and TYPE in tree:
    fields = [
      f"{k}={call(v)}" for k, v in tree.items() if k != TYPE and v != {}
    ]
    return f"{tree[TYPE].rpartition('.')[2]}({', '.join(fields)})"
  if isinstance(tree, dict) and set(tree) == {"own", "text"}:
    return str(tree["text"])
  if isinstance(tree, dict):
    return "{" + ", ".join(f"{k}: {call(v)}" for k, v in tree.items()) + "}"
  if isinstance(tree, list):
    return "[" + ", ".join(map(call, tree)) + "]"
  return str(tree)


def is_own(value: Any) -> bool:
  """Whether encoded JSON holds an object that `decode` cannot rebuild."""
  if isinstance(value, list):
    return any(is_own(v) for v in value)
  if not isinstance(value, dict):
    return False
  return set(value) == {"own", "text"} or any(map(is_own, value.values()))


def decode(value: Any, *, where: str = "config") -> Any:
  """The inverse of `encode`; lists become tuples, as in all configs.

  Raises: UserError for names that are not public classes of jdistill, for
    fields that do not exist, are missing or of another type, and for objects of
    the user's own.
  """
  try:
    return _decode(value, where)
  except RecursionError as error:
    raise types.UserError(f"{where}: nests too deep") from error


def _decode(value: Any, where: str) -> Any:
  if isinstance(value, list):
    return tuple(_decode(v, where) for v in value)
  if not isinstance(value, dict):
    return value
  if set(value) == {"own", "text"}:
    raise types.UserError(
      f"{where}: holds {value['own']}, a class of your own, which JSON cannot "
      "rebuild; give the Python config file again"
    )
  if TYPE not in value:
    return {k: _decode(v, f"{where}.{k}") for k, v in value.items()}
  kind = value[TYPE]
  cls = _public().get(kind) if isinstance(kind, str) else None
  if cls is None:
    raise types.UserError(
      f"{where}: {value[TYPE]!r} is not a public class of jdistill"
    )
  known = {f.name for f in dataclasses.fields(cls) if f.init}
  given = {k: v for k, v in value.items() if k != TYPE}
  extra = sorted(set(given) - known)
  if extra:
    raise types.UserError(
      f"{where}: {value[TYPE]} has no field {', '.join(extra)}; it has "
      f"{', '.join(sorted(known))}"
    )
  fields = {k: _decode(v, f"{where}.{k}") for k, v in given.items()}
  return _build(cls, fields, where)


def _build(cls: type, fields: dict[str, Any], where: str) -> Any:
  """An object of a class, whose fields are known to exist."""
  lacking = [
    f.name
    for f in dataclasses.fields(cls)
    if f.init
    and f.name not in fields
    and f.default is dataclasses.MISSING
    and f.default_factory is dataclasses.MISSING
  ]
  if lacking:
    raise types.UserError(
      f"{where}: {public_name(cls)} lacks {', '.join(lacking)}"
    )
  for name, value in fields.items():
    if said := config_types.fault(cls, name, value):
      raise types.UserError(f"{where}: {said}")
  try:
    return cls(**fields)
  except types.UserError as error:
    raise types.UserError(f"{where}: {error}") from error


def public_name(cls: type) -> str | None:
  """`jdistill.methods.KD` for a public class, None for any other."""
  for name, known in _public().items():
    if known is cls:
      return name
  return None


def _public() -> dict[str, type]:
  """Every dataclass that a config may hold, by the name users import."""
  from jdistill import (
    audit,
    beds,
    cached,
    config,
    data,
    methods,
    models,
    optim,
    rollout,
    sampling,
    schedules,
    sharding,
  )

  modules = (
    audit,
    beds,
    cached,
    config,
    data,
    methods,
    models,
    optim,
    rollout,
    sampling,
    schedules,
    sharding,
  )
  return {
    f"{module.__name__}.{name}": value
    for module in modules
    for name, value in vars(module).items()
    if isinstance(value, type)
    and dataclasses.is_dataclass(value)
    and not name.startswith("_")
  }
