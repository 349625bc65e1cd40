# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which tokens of two tokenizers stand for the same bytes of a text.

A chunk is a shortest run of bytes at whose two ends both tokenizers have an end
of a token: so many tokens of one, so many of the other, the same text. Special
tokens stand for no bytes. Where a normaliser has changed the text for one of
them, what differs is in no chunk.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_ANCHOR = 12
"""So many equal bytes show where two differing texts go on as one."""
_REACH = 256
"""Bytes of both together that are given up in search of that place."""


class Chunks(NamedTuple):
  """The chunk of each token, counted from 1 in the text; 0 for none."""

  student: np.ndarray  # [n] int32
  teacher: np.ndarray  # [m] int32


def align(
  student: Sequence[bytes], teacher: Sequence[bytes], *, ended: bool = False
) -> Chunks:
  """Aligns two tokenizations of a text by their bytes.

  Args:
    student: what each token stands for, `tokenizers.token_pieces` of its id.
    teacher: the same of the other tokenizer.
    ended: whether the last token of each is the one that ends a text; these
      are a chunk of their own.
  """
  bounds = [_bounds(student), _bounds(teacher)]
  starts, ends = _common(bounds, b"".join(student), b"".join(teacher))
  sides = [_members(bounds[i], starts[:, i], ends[:, i]) for i in range(2)]
  whole = np.ones(len(starts) + 1, bool)
  for _, broken in sides:
    whole[broken] = False
  whole[0] = False
  number = np.where(whole, np.cumsum(whole), 0).astype(np.int32)
  found = Chunks(*(number[chunk] for chunk, _ in sides))
  if ended:
    last = int(whole.sum()) + 1
    found.student[-1], found.teacher[-1] = last, last
  return found


def _bounds(pieces: Sequence[bytes]) -> np.ndarray:
  """[n + 1] where tokens start and end, in bytes."""
  return np.cumsum([0, *map(len, pieces)])


def _common(
  bounds: list[np.ndarray], student: bytes, teacher: bytes
) -> tuple[np.ndarray, np.ndarray]:
  """Starts and ends of all chunks, [K, 2] each: in bytes of either text."""
  starts, ends = [], []
  for i, j, length in _equal_runs(student, teacher):
    at = np.intersect1d(
      _within(bounds[0], i, i + length), _within(bounds[1], j, j + length) - j
      + i,
    )  # fmt: skip
    both = np.stack([at, at - i + j], axis=1)
    starts.append(both[:-1])
    ends.append(both[1:])
  none = [np.zeros((0, 2), np.int64)]
  return np.concatenate(starts or none), np.concatenate(ends or none)


def _within(bounds: np.ndarray, low: int, high: int) -> np.ndarray:
  first, last = np.searchsorted(bounds, [low, high + 1])
  return bounds[first:last]


def _members(
  bounds: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The chunk of each token, from 1, and those that a special token is in."""
  low, high = bounds[:-1], bounds[1:]
  padded = np.append(starts, np.iinfo(np.int64).max)
  at = np.searchsorted(ends, high)
  inside = (padded[at] <= low) & (high > low)
  special = (padded[at] < low) & (high == low)
  # One at the end of a chunk is behind it.
  special &= np.append(ends, 0)[at] > high
  return np.where(inside, at + 1, 0), at[special] + 1


def _equal_runs(a: bytes, b: bytes) -> Iterator[tuple[int, int, int]]:
  """Runs of equal bytes: where each starts in either text, and its length."""
  i = j = 0
  while True:
    length = _equal(a, b, i, j)
    if length:
      yield i, j, length
    i, j = i + length, j + length
    if i == len(a) or j == len(b):
      return
    after = _resumed(a, b, i, j)
    if after is None:
      return
    i, j = after


def _equal(a: bytes, b: bytes, i: int, j: int) -> int:
  """How many bytes are equal from here on."""
  length, size = 0, 64
  while True:
    x = a[i + length : i + length + size]
    y = b[j + length : j + length + size]
    if x != y or not x:
      few = min(len(x), len(y))
      bits = [np.frombuffer(side[:few], np.uint8) for side in (x, y)]
      differ = bits[0] != bits[1]
      return length + (int(differ.argmax()) if differ.any() else few)
    length, size = length + len(x), 2 * size


def _resumed(a: bytes, b: bytes, i: int, j: int) -> tuple[int, int] | None:
  """The nearest places behind a difference where the texts are equal again."""
  for lost in range(1, _REACH):
    for x in range(lost + 1):
      one, other = i + x, j + lost - x
      ahead = a[one : one + _ANCHOR]
      if ahead and ahead == b[other : other + _ANCHOR]:
        short = len(ahead) < _ANCHOR
        if not short or (one + len(ahead) == len(a)
                         and other + len(ahead) == len(b)):  # fmt: skip
          return one, other
  return None


class Piece(NamedTuple):
  """A part of a text that fits in a row on both sides, in tokens of each.

  Of a text that is cut, each piece but the first begins with a chunk that the
  one before has had, and each but the last ends with one that the next will
  have: so every chunk is once learnt with text before and behind it.
  """

  start: tuple[int, ...]  # of the student and the teacher
  stop: tuple[int, ...]
  learnt: tuple[tuple[int, int], ...]  # from, to: what counts
  chunks: tuple[int, int]  # first and last that count
  continued: bool


def cut(
  chunks: Chunks, sizes: tuple[int, int], prefixed: tuple[bool, bool]
) -> Iterator[Piece]:
  """Cuts a text into pieces that fit in rows on both sides.

  Args:
    chunks: of all its tokens.
    sizes: places of a row, student and teacher; a piece takes one less than its
      tokens.
    prefixed: whether a piece that continues a text has a token of no text
      before it.
  """
  total = [len(side) for side in chunks]
  num = int(max(chunks.student.max(initial=0), chunks.teacher.max(initial=0)))
  first, last = zip(*(_places(side, num) for side in chunks), strict=True)
  before = 0  # the chunk that a piece begins with; none before the first
  continued = False
  while before < num:
    start = tuple(int(f[before - 1]) if continued else 0 for f in first)
    room = [
      begin + size + 1 - (continued and more)
      for begin, size, more in zip(start, sizes, prefixed, strict=True)
    ]
    ends = all(n <= r for n, r in zip(total, room, strict=True))
    if ends:
      behind, stop = num + 1, tuple(total)
    else:
      behind = min(
        int(np.searchsorted(side + 1, r, side="right"))
        for side, r in zip(last, room, strict=True)
      )
      stop = tuple(int(side[behind - 1]) + 1 for side in last)
    if behind - 1 <= before:  # not one chunk fits beside what it begins with
      before, continued = before + 1, True
      continue
    chunk = (before + 1, behind - 1)
    learnt = tuple(
      (
        int(first[i][before]) if continued else 1,
        total[i] if ends else int(last[i][behind - 2]) + 1,
      )
      for i in range(2)
    )
    yield Piece(start, stop, learnt, chunk, continued)
    if ends:
      return
    before, continued = behind - 1, True


def _places(side: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
  """First and last token of each chunk, [num] each."""
  at = np.flatnonzero(side)
  number = side[at]
  low = np.searchsorted(number, np.arange(1, num + 1))
  high = np.searchsorted(number, np.arange(1, num + 1), side="right") - 1
  return at[low], at[high]
