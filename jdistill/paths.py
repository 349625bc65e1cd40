# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters by name: their keys joined by slashes, and patterns of these."""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from jdistill import types


def name_of(path: Any) -> str:
  """The name of a leaf, from its path of jax.tree_util."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def names(tree: types.PyTree) -> list[str]:
  """The names of a tree's leaves, in their order."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [name_of(path) for path, _ in flat]


def matching(
  field: str, patterns: Iterable[str], names: Sequence[str]
) -> list[bool]:
  """Which of the names one of the patterns means.

  Args:
    field: where the patterns come from, for the message.
    patterns: such as "*norm/scale".
    names: of parameters.
  Raises: UserError for a pattern that means none.
  """
  hits = [False] * len(names)
  for pattern in patterns:
    found = [fnmatch.fnmatchcase(name, pattern) for name in names]
    if not any(found):
      shown = ", ".join(sorted(names)[:8])
      raise types.UserError(
        f"{field}: {pattern!r} matches no parameter; there are {len(names)}: "
        f"{shown}{', ...' if len(names) > 8 else ''}"
      )
    hits = [a or b for a, b in zip(hits, found, strict=True)]
  return hits
