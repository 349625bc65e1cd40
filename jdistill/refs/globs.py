# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Globs over names in an archive or repository, and names nearly right."""

import difflib
import re
from collections.abc import Iterable

from jdistill.types import UserError

_MAGIC = re.compile(r"[*?\[]")


def is_glob(pattern: str) -> bool:
  """Whether a path has a wildcard."""
  return bool(_MAGIC.search(pattern))


def select(pattern: str, names: Iterable[str]) -> list[str]:
  """The names that a path, directory or glob means, sorted.

  `*` and `?` stay within one directory; `**/` spans any number of them. A
  directory means all files in and under it.
  """
  names = sorted(names)
  if not is_glob(pattern):
    exact = [name for name in names if name == pattern]
    return exact or [name for name in names if name.startswith(f"{pattern}/")]
  try:
    regex = re.compile(_translate(pattern))
  except re.error as error:
    raise UserError(f"glob {pattern!r}: {error}") from None
  return [name for name in names if regex.fullmatch(name)]


def nearest(pattern: str, names: Iterable[str], count: int = 3) -> str:
  """A remark on what is there instead: names nearly like it, or the first."""
  names = sorted(names)
  close = difflib.get_close_matches(pattern, names, count, 0.5)
  if not close:
    tails = {name.rpartition("/")[2]: name for name in names}
    tail = pattern.rpartition("/")[2]
    close = [
      tails[t] for t in difflib.get_close_matches(tail, tails, count, 0.5)
    ]
  if close:
    return f"did you mean {' or '.join(close)}?"
  if not names:
    return "there are no files"
  more = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return f"there are {', '.join(names[:5])}{more}"


def _translate(pattern: str) -> str:
  regex, at = "", 0
  while at < len(pattern):
    rest = pattern[at:]
    if rest.startswith("**/"):
      regex, at = f"{regex}(?:.*/)?", at + 3
    elif rest.startswith("**"):
      regex, at = f"{regex}.*", at + 2
    elif rest[0] == "*":
      regex, at = f"{regex}[^/]*", at + 1
    elif rest[0] == "?":
      regex, at = f"{regex}[^/]", at + 1
    elif (end := rest.find("]", 2)) > 0 and rest[0] == "[":
      chosen = rest[1:end].replace("\\", r"\\").replace("[", r"\[")
      chosen = "^" + chosen[1:] if chosen[0] == "!" else chosen
      regex, at = f"{regex}[{chosen}]", at + end + 1
    else:
      regex, at = regex + re.escape(rest[0]), at + 1
  return regex
