# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Worlds made of worlds."""

import dataclasses
import itertools

import numpy as np

from jdistill import types
from jdistill.beds.documents import Bed, Document, Part


@dataclasses.dataclass(frozen=True)
class Demonstrated(Bed):
  """Documents whose prompt shows the answer: prompt, answer, prompt, answer.

  A model that has learnt them reads a demonstration, as the teacher of
  self-distillation has to.

  Attributes:
    of: writes what is demonstrated.
  """

  of: Bed

  @property
  def vocab_size(self) -> int:
    return self.of.vocab_size

  @property
  def end_ids(self) -> tuple[int, ...]:
    return self.of.end_ids

  def documents(
    self, seed: int, num: int, part: Part = "train", *, length: int
  ) -> list[Document]:
    """Those of `of` with the same arguments, each with its demonstration.

    Raises: UserError if one exceeds `length` tokens.
    """
    found = []
    for document in self.of.documents(seed, num, part, length=length):
      tokens = np.tile(document.tokens, 2)
      if len(tokens) > length:
        raise types.UserError(
          f"Demonstrated: a document has {len(tokens)} tokens with its "
          f"demonstration, expected at most {length}: raise seq_len"
        )
      shown = len(document.tokens) + document.prompt_length
      found.append(Document(tokens, shown))
    return found

  def pieces(self, tokens: np.ndarray) -> list[str]:
    return self.of.pieces(tokens)


@dataclasses.dataclass(frozen=True)
class Mixed(Bed):
  """Several worlds in turn: document i is one of world i modulo their number.

  Attributes:
    parts: the worlds, of one vocabulary.
  """

  parts: dict[str, Bed]

  def __post_init__(self):
    sizes = {bed.vocab_size for bed in self.parts.values()}
    if len(sizes) != 1:
      raise types.UserError(
        f"Mixed.parts: found vocabularies of {sorted(sizes) or 'nobody'}, "
        "expected one size"
      )

  @property
  def _first(self) -> Bed:
    return next(iter(self.parts.values()))

  @property
  def vocab_size(self) -> int:
    return self._first.vocab_size

  @property
  def end_ids(self) -> tuple[int, ...]:
    return self._first.end_ids

  def documents(
    self, seed: int, num: int, part: Part = "train", *, length: int
  ) -> list[Document]:
    each = -(-num // len(self.parts))
    written = [
      bed.documents(seed, each, part, length=length)
      for bed in self.parts.values()
    ]
    in_turn = itertools.chain.from_iterable(zip(*written, strict=True))
    return list(in_turn)[:num]

  def pieces(self, tokens: np.ndarray) -> list[str]:
    return self._first.pieces(tokens)
