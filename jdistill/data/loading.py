# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""From a data config of any kind to its batches."""

import os
from collections.abc import Callable
from typing import Any

from jdistill.data import base, loader

Beside = Callable[[base.Opened], base.Opened]
"""Puts further arrays beside those of each row."""


def load(
  data: base.Data,
  tokenizer: Any = None,
  *,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  cache_dir: str | os.PathLike[str] | None = None,
  num_threads: int = 2,
  beside: Beside | None = None,
) -> loader.Loader:
  """Opens the data of a config.

  Args:
    data: which data, and how they become batches.
    tokenizer: from `jdistill.tokenizers.load`; text alone needs one.
    seed: chooses the order of the rows.
    process_index: this process among those that share the global batch.
    process_count: how many there are.
    cache_dir: where tokenised documents are kept for the next start; None
      holds them in memory.
    num_threads: threads that prepare batches ahead; 0 for none.
    beside: what else each row has, such as what a teacher said of it.

  Returns: batches of the rows of `data.open`, [B, ...], B this process's share
    of `data.batch_size`.

  Raises:
    UserError: for a config, file or row that cannot be used.
  """
  opened = data.open(tokenizer, cache_dir)
  return data.draw(
    opened if beside is None else beside(opened),
    seed=seed,
    process_index=process_index,
    process_count=process_count,
    num_threads=num_threads,
  )
