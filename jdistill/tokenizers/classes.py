# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Kinds of tokens, by the text that they stand for."""

from typing import TYPE_CHECKING

import numpy as np

from jdistill.tokenizers.documents import token_pieces

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

CLASSES = (
  "word start",
  "word part",
  "number",
  "punctuation",
  "white space",
  "bytes",
  "special",
)
"""A word's first token begins with white space; "bytes" are parts of a
character; "special" are tokens that stand for no text."""


def token_classes(tokenizer: "PreTrainedTokenizerFast") -> np.ndarray:
  """The class of each id, int32 [V], an index into `CLASSES`.

  Args:
    tokenizer: as for `token_pieces`.
  Raises: UserError as `token_pieces`.
  """
  names = [_class_of(piece) for piece in token_pieces(tokenizer)]
  return np.array([CLASSES.index(name) for name in names], np.int32)


def _class_of(piece: bytes) -> str:
  if not piece:
    return "special"
  try:
    text = piece.decode()
  except UnicodeDecodeError:
    return "bytes"
  bare = text.strip()
  if not bare:
    return "white space"
  if any(c.isalpha() for c in bare):
    return "word start" if text[0].isspace() else "word part"
  return "number" if any(c.isdigit() for c in bare) else "punctuation"
