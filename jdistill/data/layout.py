# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which documents share a row: cutting, packing, and laying out one row.

A document of `n` tokens has `n - 1` targets, each token's successor. Rows hold
(token, target) pairs, so a document takes `n - 1` places, its last token is
only ever a target, and no pair reaches into another document. A piece is a run
of pairs of one document that fits in a row.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

Packing = Literal["pack", "pad"]


@dataclasses.dataclass(frozen=True)
class Pieces:
  """Runs of pairs: `tokens[start:start + length]` and their successors."""

  start: np.ndarray  # [N] int64, into the flat token array
  length: np.ndarray  # [N] int64, 1 to seq_len

  def __len__(self) -> int:
    return len(self.start)

  def take(self, index: np.ndarray) -> "Pieces":
    return Pieces(self.start[index], self.length[index])


@dataclasses.dataclass(frozen=True)
class Bins:
  """Items by bin: bin `b` holds `order[starts[b]:starts[b + 1]]`."""

  order: np.ndarray  # [N] int64
  starts: np.ndarray  # [bins + 1] int64

  def __len__(self) -> int:
    return len(self.starts) - 1

  def __getitem__(self, index: int) -> np.ndarray:
    return self.order[self.starts[index] : self.starts[index + 1]]


def cut(offsets: np.ndarray, seq_len: int) -> Pieces:
  """Cuts documents into pieces of at most `seq_len` pairs, losing none.

  Documents that fit stay whole. A longer one gives full pieces and a rest;
  the last target of a piece is the first token of the next.

  Args:
    offsets: [D + 1], document `d` is `tokens[offsets[d]:offsets[d + 1]]`.
    seq_len: the most pairs that a piece may have.
  """
  offsets = np.asarray(offsets, np.int64)
  pairs = np.maximum(np.diff(offsets) - 1, 0)
  counts = -(-pairs // seq_len)
  document = np.repeat(np.arange(len(pairs)), counts)
  first = np.cumsum(counts) - counts
  within = (np.arange(len(document)) - first[document]) * seq_len
  return Pieces(
    start=offsets[:-1][document] + within,
    length=np.minimum(seq_len, pairs[document] - within),
  )


def best_fit(lengths: np.ndarray, capacity: int) -> Bins:
  """Best-fit-decreasing bins, in time that grows with the distinct lengths.

  Longest first, each item goes into the fullest bin that still takes it. Items
  of one length and bins of one free space are interchangeable, so they are
  placed in groups; the outcome is that of placing them one by one.

  Args:
    lengths: [N] from 1 to `capacity`; ties keep their order.
    capacity: what a bin holds.

  References: Krell et al., 2021, arXiv:2107.02027 (packing by histogram).
  """
  lengths = np.asarray(lengths, np.int64)
  order = np.argsort(-lengths, kind="stable")
  bin_of = np.empty(len(lengths), np.int64)
  free: dict[int, list[np.ndarray]] = {}  # space left -> bins
  spaces = 0  # bit s is set where free[s] is not empty
  bins = 0
  done = 0
  for size, count in _longest_first(lengths):
    items = order[done : done + count]
    done += count
    while len(items):
      fitting = spaces >> size
      if fitting:
        space = size + (fitting & -fitting).bit_length() - 1
        group = free[space].pop()
        if not free[space]:
          spaces &= ~(1 << space)
      else:
        space = capacity
        group = bins + np.arange(-(-len(items) // (capacity // size)))
        bins += len(group)
      each = space // size
      used = min(len(group), -(-len(items) // each))
      placed = items[: used * each]
      bin_of[placed] = np.repeat(group[:used], each)[: len(placed)]
      items = items[len(placed) :]
      # The last bin may have got fewer than the others.
      last = len(placed) - (used - 1) * each
      for left, members in (
        (space - each * size, group[: used - 1]),
        (space - last * size, group[used - 1 : used]),
        (space, group[used:]),
      ):
        if left and len(members):
          free.setdefault(left, []).append(members)
          spaces |= 1 << left
  return _numbered_by_first_item(bin_of, bins)


def _longest_first(lengths: np.ndarray) -> list[tuple[int, int]]:
  sizes, counts = np.unique(-lengths, return_counts=True)
  return list(zip((-sizes).tolist(), counts.tolist(), strict=True))


def _numbered_by_first_item(bin_of: np.ndarray, bins: int) -> Bins:
  """Bins in the order of their first items, so that rows read in sequence
  follow the documents rather than their lengths."""
  first = np.full(bins, len(bin_of))
  np.minimum.at(first, bin_of, np.arange(len(bin_of)))
  rank = np.empty(bins, np.int64)
  rank[np.argsort(first)] = np.arange(bins)
  filled = np.bincount(rank[bin_of], minlength=bins)
  return Bins(
    np.argsort(rank[bin_of], kind="stable"),
    np.concatenate([[0], np.cumsum(filled)]),
  )


def one_each(lengths: np.ndarray) -> Bins:
  """Bins of one item each, for padded rows."""
  return Bins(np.arange(len(lengths)), np.arange(len(lengths) + 1))


def lay_out(
  tokens: np.ndarray,
  starts: Sequence[int] | np.ndarray,
  lengths: Sequence[int] | np.ndarray,
  seq_len: int,
  learn: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """One row: arrays [T] as `types.Tokens` describes them.

  Args:
    tokens: the flat tokens of all documents.
    starts: where each piece of this row starts in `tokens`.
    lengths: pairs of each piece; they sum to at most `seq_len`.
    seq_len: the row's width; what is left over is padding, all zeros.
    learn: flat, 0 where a token is not to be learnt as a target.
  """
  row = {
    "tokens": np.zeros(seq_len, np.int32),
    "targets": np.zeros(seq_len, np.int32),
    "mask": np.zeros(seq_len, np.float32),
    "positions": np.zeros(seq_len, np.int32),
    "segment_ids": np.zeros(seq_len, np.int32),
  }
  at = 0
  for segment, (start, length) in enumerate(
    zip(starts, lengths, strict=True), start=1
  ):
    place, source = slice(at, at + length), slice(start + 1, start + length + 1)
    row["tokens"][place] = tokens[start : start + length]
    row["targets"][place] = tokens[source]
    row["mask"][place] = 1.0 if learn is None else learn[source]
    row["positions"][place] = np.arange(length)
    row["segment_ids"][place] = segment
    at += length
  return row
