# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""How tokens are drawn, in one value."""

import dataclasses

from jdistill import types


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How text is written.

  The settings act on the next token's logits in the order of the fields. At
  temperature 0 the penalty alone acts.

  Attributes:
    max_new_tokens: where a text without an end is cut off.
    repetition_penalty: logits of tokens that the prompt or the answer has
      already are divided by it where positive and multiplied where negative;
      1 changes nothing.
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: draws among so many likeliest tokens only, and their equals.
    top_p: draws among the likeliest tokens only, as few as hold this share of
      the probability, and their equals; 1 keeps all.
    min_p: draws among tokens at least this share as likely as the likeliest.
  """

  max_new_tokens: int = 128
  repetition_penalty: float = 1.0
  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None

  def __post_init__(self):
    self._check("max_new_tokens", self.max_new_tokens >= 1, "at least 1")
    penalty = self.repetition_penalty
    self._check("repetition_penalty", 0 < penalty < 1e9, "more than 0")
    heat = self.temperature
    self._check("temperature", 0 <= heat < 1e9, "0 or more")
    self._check("top_k", self.top_k is None or self.top_k >= 1, "at least 1")
    self._check(
      "top_p", self.top_p is None or 0 < self.top_p <= 1, "more than 0, up to 1"
    )
    self._check("min_p", self.min_p is None or 0 <= self.min_p <= 1, "0 to 1")

  def _check(self, name: str, good: bool, expected: str) -> None:
    if not good:
      raise types.UserError(
        f"sampling: found {name}={getattr(self, name)}, expected {expected}"
      )

  @property
  def greedy(self) -> bool:
    return self.temperature == 0

  def numbers(self) -> dict[str, float]:
    """The settings that act and shape nothing, so that they may be traced."""
    found = {}
    if self.repetition_penalty != 1:
      found["repetition_penalty"] = self.repetition_penalty
    if self.greedy:
      return found
    found["temperature"] = self.temperature
    if self.top_p is not None and self.top_p < 1:
      found["top_p"] = self.top_p
    if self.min_p:
      found["min_p"] = self.min_p
    return found
