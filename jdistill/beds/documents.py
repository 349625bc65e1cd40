# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The text of a bed: token arrays with prompts, as data of a run."""

import abc
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from jdistill import data, types
from jdistill.data import files, layout, loader

Part: TypeAlias = Literal["train", "heldout"]


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


class Bed(abc.ABC):
  """A world that writes documents of which everything is known."""

  @property
  @abc.abstractmethod
  def vocab_size(self) -> int:
    """Number of tokens."""

  @property
  def end_ids(self) -> tuple[int, ...]:
    """Tokens that end a document."""
    return ()

  @abc.abstractmethod
  def documents(
    self, seed: int, num: int, part: Part = "train", *, length: int
  ) -> list[Document]:
    """Writes documents of at most `length` tokens.

    Document i depends on `seed`, `part` and i only, not on `num`.
    """

  def pieces(self, tokens: np.ndarray) -> list[str]:
    """Each of the ids [T] as people read it."""
    return [f"{token} " for token in tokens.tolist()]


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

  def answers(self) -> np.ndarray:
    """[N, 2] where what is learnt of each document starts and ends."""
    spans = [(max(d.prompt_length, 1), len(d.tokens)) for d in self.documents]
    return np.array(spans, np.int64).reshape(-1, 2)


@dataclasses.dataclass(frozen=True)
class BedData(data.Data):
  """Documents that a bed writes, one in a row; see `Data` for the rest.

  Attributes:
    bed: what writes them.
    num_documents: how many there are.
    part: "train" or "heldout". Whatever their seeds, the two share no prompt
      of a sum, and a chain draws them apart.
    seed: chooses the documents; the run's seed chooses their order.
    seq_len: pairs of token and target in a row. A chain writes as many; sums
      are as long as they are and have to fit.
  """

  bed: Bed
  num_documents: int = 1024
  part: Part = "train"
  seed: int = 0
  seq_len: int = 64

  @property
  def title(self) -> str:
    return f"{self.num_documents} {self.part} documents of {self.bed}"

  @property
  def vocab_size(self) -> int:
    return self.bed.vocab_size

  @property
  def end_ids(self) -> tuple[int, ...]:
    return self.bed.end_ids

  def pieces(self, tokens: np.ndarray) -> list[str]:
    return self.bed.pieces(tokens)

  def open(
    self,
    tokenizer: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
  ) -> data.Opened:
    """Has the documents written; see `Data.open`."""
    del tokenizer, cache_dir
    for field, least in (("num_documents", 1), ("seq_len", 1), ("seed", 0)):
      if getattr(self, field) < least:
        raise types.UserError(
          f"BedData.{field}: found {getattr(self, field)}, expected at least"
          f" {least}"
        )
    documents = self.bed.documents(
      self.seed, self.num_documents, self.part, length=self.seq_len + 1
    )
    rows = Rows(documents, self.seq_len)
    lengths = [len(document.tokens) for document in documents]
    facts = loader.Facts(
      num_rows=len(rows),
      num_tokens=sum(int(d.learn[1:].sum()) for d in documents),
      efficiency=(sum(lengths) - len(rows)) / (len(rows) * self.seq_len),
      example=layout.lay_out(np.zeros(0, np.int32), [], [], self.seq_len),
      identity=files.combine(
        self.seq_len,
        lengths,
        [document.prompt_length for document in documents],
        np.concatenate([d.tokens for d in documents]).tobytes(),
      ),
    )
    return data.Opened([rows], facts)
