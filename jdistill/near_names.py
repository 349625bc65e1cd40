# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a misspelt flag or name may have been meant for."""

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import Any


def of_flag(config: Any, argv: Sequence[str]) -> str | None:
  """The flag nearest to the first of a command line that is none.

  Only for a command line that was refused: it may have flags of which the
  config has no field yet.

  Args:
    config: a dataclass whose fields are flags.
    argv: the command line.
  """
  known = {flag.replace("_", "-") for flag in _flags(config, "-")}
  for word in argv:
    flag = word.partition("=")[0].replace("_", "-")
    if flag.startswith("--") and flag not in known:
      near = difflib.get_close_matches(flag, known, 1, 0.8)
      return near[0] if near else None
  return None


def _flags(tree: Any, path: str) -> Iterator[str]:
  inside = tree if isinstance(tree, dict) else {}
  if dataclasses.is_dataclass(tree):
    inside = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
  for name, one in inside.items():
    flag = f"--{name}" if path == "-" else f"{path}.{name}"
    yield flag
    yield from _flags(one, flag)


def hint(error: BaseException) -> str:
  """What an object has that is called nearly like what it lacks."""
  if not isinstance(error, AttributeError) or not error.name:
    return ""
  near = difflib.get_close_matches(error.name, dir(error.obj), 1)
  return f"; did you mean {near[0]}?" if near else ""
