# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Sums with a verifier: `12+7=` is answered by `19`, and by nothing else.

Characters are tokens. Prompts are divided into a training and a held-out part
by a hash of their text, so that the parts never share one, whatever the seed.
"""

import dataclasses
import re
import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from jdistill import types
from jdistill.beds.documents import Bed, Document, Part

ALPHABET = "0123456789+-="
PAD, EOS = 0, 1
VOCAB_SIZE = len(ALPHABET) + 2
"""Padding, the end of a document, and the characters of `ALPHABET`."""

TokenIds: TypeAlias = Sequence[int] | np.ndarray

_IDS = {character: i for i, character in enumerate(ALPHABET, start=2)}
_PROMPT = re.compile(r"\d+([+-]\d+)*=")
_TRIES = 10_000


def encode(text: str) -> np.ndarray:
  """Ids [n] int32 of a text over `ALPHABET`, without an end.

  Raises: UserError for other characters.
  """
  unknown = sorted(set(text) - set(ALPHABET))
  if unknown:
    raise types.UserError(
      f"arithmetic: found {unknown[0]!r} in {text!r}, expected characters of"
      f" {ALPHABET!r}"
    )
  return np.array([_IDS[character] for character in text], np.int32)


def decode(ids: TokenIds) -> str:
  """The text up to the first end; other ids than characters give "?"."""
  text = []
  for token in np.asarray(ids, np.int64).tolist():
    if token == EOS:
      break
    known = 2 <= token < VOCAB_SIZE
    text.append(ALPHABET[token - 2] if known else "?")
  return "".join(text)


def verify(prompt: str, completion: str) -> float:
  """1.0 where the completion is the prompt's value, as one writes it; else 0.0.

  Args:
    prompt: numbers joined by + or -, and "=" behind: "12+7=".
    completion: what was answered, without the end. Leading zeros, signs that
      are not needed, spaces and further characters make it wrong.
  Raises: UserError for a prompt that is no sum.
  """
  return float(completion == str(_value(prompt)))


@dataclasses.dataclass(frozen=True)
class Arithmetic(Bed):
  """A family of sums.

  Attributes:
    terms: smallest and largest number of terms.
    digits: smallest and largest number of digits of a term.
    operations: "+" for sums, "-" for differences, "+-" for both.
    label_noise: share of documents whose answer is wrong by one digit.
    heldout: share of prompts that only the held-out part has.
  """

  terms: tuple[int, int] = (2, 2)
  digits: tuple[int, int] = (1, 2)
  operations: Literal["+", "-", "+-"] = "+"
  label_noise: float = 0.0
  heldout: float = 0.1

  def __post_init__(self):
    for field, least in (("terms", 2), ("digits", 1)):
      low, high = getattr(self, field)
      if not least <= low <= high:
        raise types.UserError(
          f"Arithmetic.{field}: found {(low, high)}, expected a smallest"
          f" number of at least {least} and a largest not below it"
        )
    for field in ("label_noise", "heldout"):
      if not 0 <= getattr(self, field) <= 1:
        raise types.UserError(
          f"Arithmetic.{field}: found {getattr(self, field)}, expected a share"
          " from 0 to 1"
        )

  @property
  def end_ids(self) -> tuple[int, ...]:
    return (EOS,)

  @property
  def vocab_size(self) -> int:
    return VOCAB_SIZE

  @property
  def max_length(self) -> int:
    """Tokens of the longest document: prompt, answer and end."""
    terms, digits = self.terms[1], self.digits[1]
    most = 10**digits - 1
    largest = terms * most if "+" in self.operations else most
    smallest = (1 - terms) * most if "-" in self.operations else 0
    value = max(len(str(largest)), len(str(smallest)))
    return terms * (digits + 1) + value + 1

  def documents(
    self,
    seed: int,
    num: int,
    part: Part = "train",
    *,
    length: int | None = None,
  ) -> list[Document]:
    """Prompts with answers and ends; the answers alone are to be learnt.

    Document i depends on `seed`, `part` and i only. Noise strikes answers of
    either part, and leaves the prompts as they are without it.

    Raises: UserError if the longest possible document exceeds `length` tokens.
    """
    if length is not None and length < self.max_length:
      raise types.UserError(
        f"Arithmetic: terms={self.terms} and digits={self.digits} make"
        f" documents of up to {self.max_length} tokens, expected at most"
        f" {length}: raise seq_len to {self.max_length - 1}"
      )
    documents = []
    for index in range(num):
      prompt, rng = self._draw(seed, index, part)
      answer = str(_value(prompt))
      if rng.random() < self.label_noise:
        answer = _wrong(answer, rng)
      tokens = np.append(encode(prompt + answer), np.int32(EOS))
      documents.append(Document(tokens, len(prompt)))
    return documents

  def pieces(self, tokens: np.ndarray) -> list[str]:
    """Characters; the end is a return mark, padding nothing."""
    marks = {PAD: "", EOS: "\u23ce"}
    return [marks.get(t, decode([t])) for t in tokens.tolist()]

  def prompts(self, seed: int, num: int, part: Part = "train") -> list[str]:
    """The prompts of `documents` with the same arguments."""
    return [self._draw(seed, index, part)[0] for index in range(num)]

  def accuracy(
    self, prompts: Sequence[str], completions: Sequence[TokenIds]
  ) -> float:
    """Share of completions (ids) that are right."""
    rewards = [
      verify(prompt, decode(ids))
      for prompt, ids in zip(prompts, completions, strict=True)
    ]
    return sum(rewards) / max(len(rewards), 1)

  def _draw(
    self, seed: int, index: int, part: Part
  ) -> tuple[str, np.random.Generator]:
    held = part == "heldout"
    rng = np.random.default_rng([seed, index, int(held)])
    for _ in range(_TRIES):
      prompt = self._prompt(rng)
      if (zlib.crc32(prompt.encode()) < self.heldout * 2**32) == held:
        return prompt, rng
    raise types.UserError(
      f"Arithmetic: no prompt of the {part} part in {_TRIES} draws with"
      f" heldout={self.heldout}, terms={self.terms}, digits={self.digits}: use"
      " more prompts or another share"
    )

  def _prompt(self, rng: np.random.Generator) -> str:
    text = ""
    for term in range(rng.integers(*self.terms, endpoint=True)):
      if term:
        text += self.operations[rng.integers(len(self.operations))]
      digits = rng.integers(*self.digits, endpoint=True)
      low = 0 if digits == 1 else 10 ** (digits - 1)
      text += str(rng.integers(low, 10**digits))
    return text + "="


def _value(prompt: str) -> int:
  if not _PROMPT.fullmatch(prompt):
    raise types.UserError(
      f"arithmetic: found the prompt {prompt!r}, expected numbers joined by +"
      " or - and ended by =, such as '12+7='"
    )
  return sum(int(term) for term in re.findall(r"[+-]?\d+", prompt))


def _wrong(answer: str, rng: np.random.Generator) -> str:
  """The answer with one digit changed, still a number as one writes it."""
  first = answer.startswith("-")
  place = rng.integers(first, len(answer))
  leading = place == first and (first or len(answer) > 1)
  others = [
    digit for digit in "0123456789"[int(leading) :] if digit != answer[place]
  ]
  digit = others[rng.integers(len(others))]
  return answer[:place] + digit + answer[place + 1 :]
