# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Batches for one process, with a state that all processes share."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jdistill import types
from jdistill.data import files, mixture


@dataclasses.dataclass(frozen=True)
class Drawing:
  """How rows become batches.

  Attributes:
    batch_size: rows of the global batch.
    seed: chooses the order of the rows.
    shuffle: whether there is an order other than the stored one.
    epochs: passes over all rows; None goes on without end.
    weights: per source, its share of the rows when there is no end.
    block: so many rows in a row are of one source, when there is no end.
    process_index: which part of the global batch is wanted.
    process_count: among how many processes it is divided.
    num_threads: threads that prepare batches ahead; 0 prepares none ahead.
  """

  batch_size: int
  seed: int
  shuffle: bool
  epochs: int | None
  weights: tuple[float, ...]
  block: int = 1
  process_index: int = 0
  process_count: int = 1
  num_threads: int = 2


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of the rows of a loader.

  Attributes:
    num_rows: rows in one pass over every source.
    num_tokens: targets in one pass that count in the loss.
    efficiency: share of the places of those rows that hold a token.
    example: one row of zeros, whose mask is 0.
    identity: changes where any row does.
    num_classes: one more than the largest label, where all labels are known.
  """

  num_rows: int
  num_tokens: int
  efficiency: float
  example: Mapping[str, Any]
  identity: str
  num_classes: int | None = None


class Loader(Iterator[dict[str, np.ndarray]]):
  """Gives this process's part of each global batch, as NumPy arrays.

  Row `r` of the global batch belongs to process `r % process_count`. The state
  is the number of rows drawn by all of them, so that any number of processes
  takes up where any other left off. `example_id` numbers the rows of one pass;
  rows that only fill up the last batch come after them and have a mask of 0.
  """

  def __init__(
    self, sources: Sequence[mixture.Rows], drawing: Drawing, facts: Facts
  ):
    import grain

    _check(drawing)
    self.num_rows = facts.num_rows
    self.num_tokens = facts.num_tokens
    self.efficiency = facts.efficiency
    self.num_classes = facts.num_classes
    self.batch_size = drawing.batch_size
    self._identity = files.combine(
      facts.identity,
      drawing.seed,
      drawing.shuffle,
      drawing.epochs,
      drawing.weights if drawing.epochs is None else None,
      *([drawing.block] if drawing.block > 1 else []),
    )
    if drawing.epochs is None:
      self.num_batches = None
      rows = mixture.Draws(
        sources,
        drawing.weights,
        seed=drawing.seed,
        shuffle=drawing.shuffle,
        block=drawing.block,
      )
    else:
      rows = mixture.Passes(
        sources,
        facts.example,
        epochs=drawing.epochs,
        batch_size=drawing.batch_size,
        seed=drawing.seed,
        shuffle=drawing.shuffle,
      )
      self.num_batches = len(rows) // drawing.batch_size
    self._iterator = grain.experimental.ElasticIterator(
      grain.MapDataset.source(rows),
      drawing.batch_size,
      grain.sharding.ShardOptions(
        shard_index=drawing.process_index, shard_count=drawing.process_count
      ),
      read_options=grain.ReadOptions(
        num_threads=drawing.num_threads,
        prefetch_buffer_size=2 * drawing.num_threads,
      ),
    )
    self._drawn = 0

  def __iter__(self) -> "Loader":
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self.num_batches is not None and (
      self._drawn >= self.num_batches * self.batch_size
    ):
      raise StopIteration
    batch = next(self._iterator)
    self._drawn += self.batch_size
    return batch

  def state(self) -> dict[str, Any]:
    """Where the drawing is, the same on every process; plain JSON values."""
    return {"rows_drawn": self._drawn, "data": self._identity}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes to where `state` was taken.

    Raises:
      UserError: where the state belongs to other rows, or is no state.
    """
    if set(state) != {"rows_drawn", "data"}:
      raise types.UserError(
        "data state: expected the fields data and rows_drawn, found "
        f"{', '.join(sorted(state)) or 'none'}"
      )
    if state["data"] != self._identity:
      raise types.UserError(
        "data state: it was saved with other rows than these. Since then the "
        "documents, the tokenizer, the seed, or a field of the data config "
        "other than batch_size has changed; put it back, or start a new run"
      )
    self._drawn = int(state["rows_drawn"])
    self._iterator.set_state({"global_next_index": self._drawn})

  def close(self) -> None:
    """Ends the threads that prepare batches."""
    self._iterator.close()


def _check(drawing: Drawing) -> None:
  if drawing.batch_size < 1:
    raise types.UserError(
      f"data.batch_size is {drawing.batch_size}; expected at least 1"
    )
  if drawing.batch_size % drawing.process_count:
    raise types.UserError(
      f"data.batch_size is {drawing.batch_size}, which does not divide among "
      f"{drawing.process_count} processes; take a multiple of "
      f"{drawing.process_count}"
    )
  if drawing.epochs is not None and drawing.epochs < 1:
    raise types.UserError(
      f"data.epochs is {drawing.epochs}; expected at least 1, or none for "
      "rows without end"
    )
  if drawing.seed < 0:
    raise types.UserError(f"the data seed is {drawing.seed}; expected >= 0")
