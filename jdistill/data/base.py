# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What every kind of data offers: its rows, and how they become batches."""

import abc
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from jdistill.data import loader, mixture


@dataclasses.dataclass(frozen=True)
class Opened:
  """Rows that are there to be drawn, from one or more sources.

  `weights` are the sources' shares where the drawing has no end; so many rows
  as `block` says come from one source in a row.
  """

  sources: Sequence[mixture.Rows]
  facts: loader.Facts
  weights: tuple[float, ...] = (1.0,)
  block: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(abc.ABC):
  """Data of a run: a frozen dataclass that opens itself.

  Attributes:
    batch_size: rows of the global batch.
    shuffle: a new order of the rows in each pass; off, they come as stored.
    epochs: passes over the rows, the last batch filled up with rows that do
      not count; None goes on without end.
  """

  batch_size: int = 8
  shuffle: bool = True
  epochs: int | None = None

  needs_tokenizer: ClassVar[bool] = False
  """Whether `open` must have the tokenizer of a model."""

  @abc.abstractmethod
  def open(
    self,
    tokenizer: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
  ) -> Opened:
    """Finds the rows.

    Args:
      tokenizer: from `jdistill.tokenizers.load`, for data that need one.
      cache_dir: where what takes long to make is kept; None keeps nothing.
    Returns: rows as dicts, either of the fields of `types.Tokens`, [T], or of
      `types.Examples`, and `example_id`, which counts them from 0.
    Raises: UserError for a config, file or row that cannot be used.
    """

  @property
  @abc.abstractmethod
  def title(self) -> str:
    """Which data these are, in a few words, for tables."""

  @property
  def end_ids(self) -> tuple[int, ...]:
    """Tokens that end a text, if that is known without a tokenizer."""
    return ()

  @property
  def num_domains(self) -> int | None:
    """How many domains rows say that they are of; None where they say none."""
    return None

  def further(self) -> dict[str, tuple[int, ...]]:
    """Shapes of the int32 arrays that a row has beside its views."""
    return {}

  def views(self) -> dict[str, int]:
    """Places of the further views of text that a row has, by name.

    Their fields are those of `types.Tokens` under "NAME/".
    """
    return {}

  @property
  def vocab_size(self) -> int | None:
    """How many ids a model must know, if that is known without a tokenizer."""
    return None

  def pieces(self, tokens: np.ndarray) -> list[str]:
    """Each of the ids [T] as people read it, where there is no tokenizer."""
    return [f"{token} " for token in tokens.tolist()]

  def draw(
    self,
    opened: Opened,
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
  ) -> loader.Loader:
    """Batches of what is open; see `jdistill.data.load`."""
    drawing = loader.Drawing(
      batch_size=self.batch_size,
      seed=seed,
      shuffle=self.shuffle,
      epochs=self.epochs,
      weights=opened.weights,
      block=opened.block,
      process_index=process_index,
      process_count=process_count,
      num_threads=num_threads,
    )
    return loader.Loader(opened.sources, drawing, opened.facts)
