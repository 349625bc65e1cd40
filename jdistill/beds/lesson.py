# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What configs on beds share: prompts to learn from and to be judged by."""

import dataclasses
from typing import Any

from jdistill import data
from jdistill.beds.documents import Bed, BedData
from jdistill.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Lesson:
  """Prompts of a bed, and how long their answers may be.

  Attributes:
    bed: what writes the documents.
    prompt_tokens: the longest prompt.
    max_new_tokens: the longest answer.
    num_documents: to learn from.
    num_heldout: to be judged by.
    batch_size: prompts of an update.
    heldout_batch: prompts that are judged at once.
  """

  bed: Bed
  prompt_tokens: int
  max_new_tokens: int
  num_documents: int = 512
  num_heldout: int = 1024
  batch_size: int = 32
  heldout_batch: int = 256

  @property
  def seq_len(self) -> int:
    """Pairs of token and target: the longest prompt with its answer."""
    return self.prompt_tokens + self.max_new_tokens - 1

  @property
  def sampling(self) -> Sampling:
    """Answers at temperature 1."""
    return Sampling(max_new_tokens=self.max_new_tokens)

  @property
  def greedy(self) -> Sampling:
    """The likeliest answers, token by token."""
    return dataclasses.replace(self.sampling, temperature=0.0)

  def prompts(self, **changes: Any) -> data.Prompts:
    """What is learnt from; `changes` are fields of `data.Prompts`."""
    documents = BedData(self.bed, self.num_documents, seq_len=self.seq_len)
    return self._prompts(documents, self.batch_size, changes)

  def heldout(self, **changes: Any) -> data.Prompts:
    """What nobody has learnt."""
    documents = BedData(
      self.bed, self.num_heldout, "heldout", seq_len=self.seq_len
    )
    return self._prompts(documents, self.heldout_batch, changes)

  def _prompts(self, documents, batch_size, changes) -> data.Prompts:
    fields = {"prompt_tokens": self.prompt_tokens, "batch_size": batch_size}
    return data.Prompts(documents, **(fields | changes))
