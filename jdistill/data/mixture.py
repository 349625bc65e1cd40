# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which row is drawn when: quotas and shuffling as functions of an index.

Draw `i` is computed, not remembered, so an iterator's whole state is how many
rows have been drawn, whatever the number of processes that draw them.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

_SHARES = 1 << 20
"""Weights are kept to one part in this many."""


@runtime_checkable
class Rows(Protocol):
  """Rows of one source, each a dict of arrays."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> Mapping[str, Any]: ...


def shares(weights: Sequence[float]) -> tuple[int, ...]:
  """Positive whole numbers in proportion to `weights`; they sum to 2**20."""
  total = sum(weights)
  exact = [w / total * _SHARES for w in weights]
  whole = [max(1, int(x)) for x in exact]
  by_rest = sorted(range(len(exact)), key=lambda k: whole[k] - exact[k])
  for turn in range(abs(_SHARES - sum(whole))):
    # Too few are handed to the largest rests, too many taken from the largest.
    if sum(whole) < _SHARES:
      whole[by_rest[turn % len(whole)]] += 1
    else:
      whole[whole.index(max(whole))] -= 1
  return tuple(whole)


def draw(index: int, quotas: Sequence[int]) -> tuple[int, int]:
  """The source of draw `index`, and how many draws it had before.

  Among any first `n` draws, a source with quota `q` of `Q` has had `n q / Q`
  but for less than one per source: no run of luck, no random numbers.
  """
  left = sum(quotas)
  here, after = index, index + 1
  for source, quota in enumerate(quotas):
    # The sources that follow have had `rest` of the first `here` draws.
    rest = here * (left - quota) // left
    rest_after = after * (left - quota) // left
    if here - rest != after - rest_after:
      return source, here - rest
    here, after, left = rest, rest_after, left - quota
  raise AssertionError("quotas must be positive")


def permutation(count: int, *key: int) -> np.ndarray:
  """[count] a permutation that depends on the key alone.

  It sorts raw Philox numbers, a stream that NumPy keeps stable for good;
  `Generator.permutation` may change from one NumPy to the next.
  """
  bits = np.random.Philox(np.random.SeedSequence(key))
  return np.argsort(bits.random_raw(count), kind="stable")


class Draws:
  """The endless sequence of rows of one or more sources.

  Each source is gone through again and again, in a new order each time where
  `shuffle` is set; `weights` say how large a share of the rows each gives.
  Each `block` of rows is of one source.
  """

  def __init__(
    self,
    sources: Sequence[Rows],
    weights: Sequence[float],
    *,
    seed: int,
    shuffle: bool,
    block: int = 1,
  ):
    self._block = block
    self._sources = tuple(sources)
    self._quotas = shares(weights)
    self._seed = seed
    self._shuffle = shuffle
    # Prefetching threads straddle epochs, hence two orders per source.
    size = 2 * len(self._sources)
    self._order = functools.lru_cache(maxsize=size)(self._new_order)

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    source, row = self.locate(int(index))
    return self._sources[source][row]

  def locate(self, index: int) -> tuple[int, int]:
    """The source and the row that draw `index` gives."""
    block, within = divmod(index, self._block)
    source, turn = draw(block, self._quotas)
    turn = turn * self._block + within
    epoch, row = divmod(turn, len(self._sources[source]))
    if self._shuffle:
      row = int(self._order(source, epoch)[row])
    return source, row

  def _new_order(self, source: int, epoch: int) -> np.ndarray:
    return permutation(len(self._sources[source]), self._seed, source, epoch)


class Passes:
  """A fixed number of passes over all rows, filled up to whole batches.

  Weights play no part: each pass has every row of every source once.
  """

  def __init__(
    self,
    sources: Sequence[Rows],
    filler: Mapping[str, Any],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    shuffle: bool,
  ):
    self._sources = tuple(sources)
    self._ends = np.cumsum([len(s) for s in sources])
    self._rows = int(self._ends[-1])
    self._epochs = epochs
    self._batch_size = batch_size
    self._filler = filler
    self._seed = seed
    self._shuffle = shuffle
    self._order = functools.lru_cache(maxsize=2)(
      lambda epoch: permutation(self._rows, self._seed, epoch)
    )

  def __len__(self) -> int:
    return -(-self._rows * self._epochs // self._batch_size) * self._batch_size

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    epoch, row = divmod(int(index), self._rows)
    if epoch >= self._epochs:
      return {**self._filler, "example_id": np.int32(self._rows + row)}
    if self._shuffle:
      row = int(self._order(epoch)[row])
    source = int(np.searchsorted(self._ends, row, side="right"))
    first = int(self._ends[source]) - len(self._sources[source])
    return self._sources[source][row - first]
