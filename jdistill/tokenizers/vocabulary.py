# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which string each id stands for: fingerprints and comparisons."""

import hashlib
from typing import TYPE_CHECKING

from jdistill.types import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast


def fingerprint(tokenizer: "PreTrainedTokenizerFast") -> str:
  """A digest of the map from ids to strings, 64 hexadecimal digits.

  Merges, templates and flags do not enter: two tokenizers with the same
  fingerprint mean the same by each id, whatever ids they give a text.
  """
  digest = hashlib.sha256()
  for index, token in _by_id(tokenizer):
    digest.update(f"{index}:{len(token)}:{token}\n".encode())
  return digest.hexdigest()


def vocabulary_difference(
  first: "PreTrainedTokenizerFast", second: "PreTrainedTokenizerFast"
) -> str | None:
  """The first id that two tokenizers read differently, in words, or None."""
  ours, theirs = dict(_by_id(first)), dict(_by_id(second))
  for index in sorted(ours.keys() | theirs.keys()):
    if ours.get(index) != theirs.get(index):
      names = [
        repr(tokens[index]) if index in tokens else "nothing"
        for tokens in (ours, theirs)
      ]
      return (
        f"id {index} is {names[0]} in the first vocabulary ({len(ours)}"
        f" tokens) and {names[1]} in the second ({len(theirs)} tokens)"
      )
  return None


def same_vocabulary(
  first: "PreTrainedTokenizerFast", second: "PreTrainedTokenizerFast"
) -> bool:
  """Whether every id stands for the same string in both."""
  return vocabulary_difference(first, second) is None


def check_head(tokenizer: "PreTrainedTokenizerFast", vocab_size: int) -> None:
  """Refuses a tokenizer with ids that a model's head does not have.

  A head may be larger than its vocabulary (padding), never smaller: an id
  beyond it would silently become another one.

  Args:
    tokenizer: the tokenizer.
    vocab_size: number of logits of the head.
  Raises:
    UserError: there are ids of `vocab_size` or more.
  """
  beyond = [(i, token) for i, token in _by_id(tokenizer) if i >= vocab_size]
  if beyond:
    examples = ", ".join(f"{i} {token!r}" for i, token in beyond[:3])
    raise UserError(
      f"tokenizer {tokenizer.name_or_path or '(unnamed)'} does not fit the"
      f" model: {len(beyond)} of its ids are beyond the head's {vocab_size}"
      f" logits ({examples}); use the tokenizer that the model was trained with"
    )


def _by_id(tokenizer: "PreTrainedTokenizerFast") -> list[tuple[int, str]]:
  """(id, string) in the order of the ids."""
  vocabulary = tokenizer.get_vocab()
  return sorted((index, token) for token, index in vocabulary.items())
