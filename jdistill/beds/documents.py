# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The text of a bed: token arrays with prompts, and batches of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdistill import types
from jdistill.data import files, layout, loader


@dataclasses.dataclass(frozen=True, eq=False)
class Document:
  """Token ids, of which the first `prompt_length` are given, not learnt."""

  tokens: np.ndarray  # [n] int32
  prompt_length: int = 0

  @property
  def prompt(self) -> np.ndarray:
    return self.tokens[: self.prompt_length]

  @property
  def answer(self) -> np.ndarray:
    return self.tokens[self.prompt_length :]

  @property
  def learn(self) -> np.ndarray:
    """[n] 1 where the token counts as a target."""
    return (np.arange(len(self.tokens)) >= self.prompt_length).astype(np.uint8)


class Rows:
  """One document per row, padded to `seq_len` pairs of token and target.

  A source with random access, as `grain.MapDataset.source` wants it; rows are
  dicts of the fields of `types.Tokens`, [T], and `example_id`.

  Raises: UserError for a document that is too short or does not fit.
  """

  def __init__(self, documents: Sequence[Document], seq_len: int):
    for number, document in enumerate(documents):
      pairs = len(document.tokens) - 1
      if not 1 <= pairs <= seq_len:
        raise types.UserError(
          f"document {number} of the bed has {pairs + 1} tokens, expected 2 to"
          f" {seq_len + 1} for seq_len={seq_len}"
        )
    self.documents = tuple(documents)
    self.seq_len = seq_len

  def __len__(self) -> int:
    return len(self.documents)

  def __getitem__(self, index: int) -> dict[str, Any]:
    document = self.documents[index]
    row = layout.lay_out(
      document.tokens,
      [0],
      [len(document.tokens) - 1],
      self.seq_len,
      document.learn,
    )
    return {**row, "example_id": np.int32(index)}


def make_loader(
  documents: Sequence[Document],
  *,
  seq_len: int,
  batch_size: int,
  seed: int = 0,
  shuffle: bool = True,
  epochs: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> loader.Loader:
  """Batches of documents, as `jdistill.data` makes them from text.

  Args:
    documents: one per row.
    seq_len: width of the rows, in pairs of token and target.
    batch_size: rows of the global batch.
    seed: chooses the order of the rows.
    shuffle: a new order in each pass.
    epochs: passes, or None for no end.
    process_index: this process among those that share the global batch.
    process_count: how many there are.
    num_threads: threads that prepare batches ahead; 0 for none.
  Returns: batches of {tokens, targets, mask, positions, segment_ids: [B, T],
    example_id: [B]}.
  Raises: UserError for documents that do not fit.
  """
  rows = Rows(documents, seq_len)
  if not len(rows):
    raise types.UserError("the bed gave no documents, expected at least one")
  lengths = [len(document.tokens) for document in documents]
  facts = loader.Facts(
    num_rows=len(rows),
    num_tokens=sum(int(d.learn[1:].sum()) for d in documents),
    efficiency=(sum(lengths) - len(rows)) / (len(rows) * seq_len),
    example=layout.lay_out(np.zeros(0, np.int32), [], [], seq_len),
    identity=files.combine(
      seq_len,
      lengths,
      [document.prompt_length for document in documents],
      np.concatenate([d.tokens for d in documents]).tobytes(),
    ),
  )
  drawing = loader.Drawing(
    batch_size=batch_size,
    seed=seed,
    shuffle=shuffle,
    epochs=epochs,
    weights=(1.0,),
    process_index=process_index,
    process_count=process_count,
    num_threads=num_threads,
  )
  return loader.Loader([rows], drawing, facts)
