# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which documents of a corpus are meant: `train[:90%]`, and globs of names."""

import dataclasses
import fnmatch
import re
from collections.abc import Sequence

from jdistill import types

_SPLIT = re.compile(r"(?P<name>[\w.-]*)(\[(?P<lo>[^:\]]*):(?P<hi>[^:\]]*)\])?")
_EDGE = re.compile(r"(?P<number>-?\d+)(?P<percent>%?)")


@dataclasses.dataclass(frozen=True)
class Split:
  """A named split, if any, and a run of its documents in stored order."""

  name: str
  low: str
  high: str

  def bounds(self, count: int) -> tuple[int, int]:
    """First document and the one after the last, of `count` documents."""
    low = _edge(self.low, 0, count)
    return low, max(low, _edge(self.high, count, count))


def parse(text: str) -> Split:
  """Reads `NAME`, `[A:B]` or `NAME[A:B]`; A and B are counts or percents.

  Raises:
    UserError: where `text` is not of that form.
  """
  match = _SPLIT.fullmatch(text.strip())
  if match is None:
    raise _wrong(text)
  edges = match["lo"] or "", match["hi"] or ""
  for edge in edges:
    if edge.strip() and _EDGE.fullmatch(edge.strip()) is None:
      raise _wrong(text)
  return Split(match["name"], edges[0].strip(), edges[1].strip())


def select(names: Sequence[str], patterns: Sequence[str]) -> list[int]:
  """Indices of the names that the globs choose, in their order.

  A pattern that starts with `!` takes away. A name is in where it matches a
  plain pattern (or there is none) and no taking one.
  """
  wanted = [p for p in patterns if not p.startswith("!")]
  unwanted = [p[1:] for p in patterns if p.startswith("!")]

  def chosen(name: str) -> bool:
    matches = lambda p: fnmatch.fnmatchcase(name, p)  # noqa: E731
    return (not wanted or any(map(matches, wanted))) and not any(
      map(matches, unwanted)
    )

  return [i for i, name in enumerate(names) if chosen(name)]


def _edge(text: str, default: int, count: int) -> int:
  match = _EDGE.fullmatch(text)
  if match is None:
    return default
  number = int(match["number"])
  if match["percent"]:
    # Half up in integers: neighbouring splits share the same edge.
    number = (2 * number * count + 100) // 200
  if number < 0:
    number += count
  return min(max(number, 0), count)


def _wrong(text: str) -> types.UserError:
  return types.UserError(
    f"split {text!r}: expected NAME, [A:B] or NAME[A:B] with whole numbers or "
    'whole percents, such as "train", "[:90%]" or "validation[100:200]"'
  )
