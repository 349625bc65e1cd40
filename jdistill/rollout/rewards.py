# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What answers are worth, by rules that run on the host."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdistill import types


class Answer(NamedTuple):
  """One answer and what it belongs to; token ids, int32 [n] each."""

  prompt: np.ndarray
  answer: np.ndarray
  reference: np.ndarray  # the data's own answer
  text: str  # the answer, without special tokens; "" without a tokenizer


class Judged(NamedTuple):
  """What an answer is worth, and what can be said about it."""

  reward: float
  feedback: str | Sequence[int] = ""  # a text, or ids where there are no texts


def read(batch: types.Batch, tokenizer: Any) -> list[Answer]:
  """The answers of a batch, from arrays of the host.

  Args:
    batch: as a writer gives it.
    tokenizer: for their texts, or None.
  """
  found = []
  view, data = batch["student"], batch.data
  for row, length in enumerate(data["prompt_length"].tolist()):
    new = view.targets[row][view.mask[row] > 0]
    own = data["reference"][row]
    text = ""
    if tokenizer is not None:
      text = str(tokenizer.decode(new.tolist(), skip_special_tokens=True))
    prompt = data["prompt"][row, :length]
    found.append(Answer(prompt, new, own[own >= 0], text))
  return found


@dataclasses.dataclass(frozen=True)
class Reward(abc.ABC):
  """A rule that judges answers, each process its own ones.

  Answers of one group, if they are new, come together and in their order.
  """

  @abc.abstractmethod
  def __call__(self, answers: Sequence[Answer]) -> Sequence[float | Judged]:
    """A finite number for each answer, alone or in a `Judged`."""


@dataclasses.dataclass(frozen=True)
class ExactMatch(Reward):
  """1 for the data's own answer, token for token, 0 for any other."""

  def __call__(self, answers: Sequence[Answer]) -> Sequence[float]:
    return [float(np.array_equal(a.answer, a.reference)) for a in answers]
