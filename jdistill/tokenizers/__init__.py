# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers and chat templates, from wherever a model comes; no torch."""

from jdistill.tokenizers.chat import render_chat, render_prompt
from jdistill.tokenizers.classes import CLASSES, token_classes
from jdistill.tokenizers.documents import (
  adds_bos,
  adds_eos,
  byte_alphabet,
  encode_documents,
  num_bytes,
  prepends_space,
  token_bytes,
  token_pieces,
)
from jdistill.tokenizers.loading import load, locate, save
from jdistill.tokenizers.pairs import boundary, nearest, parts, same
from jdistill.tokenizers.vocabulary import (
  check_head,
  fingerprint,
  same_vocabulary,
  vocabulary_difference,
)

__all__ = [
  "CLASSES",
  "adds_bos",
  "adds_eos",
  "boundary",
  "byte_alphabet",
  "check_head",
  "encode_documents",
  "fingerprint",
  "load",
  "locate",
  "nearest",
  "num_bytes",
  "parts",
  "prepends_space",
  "render_chat",
  "render_prompt",
  "same",
  "same_vocabulary",
  "save",
  "token_bytes",
  "token_classes",
  "token_pieces",
  "vocabulary_difference",
]
