# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers and chat templates, from wherever a model comes; no torch."""

from jdistill.tokenizers.chat import render_chat, render_prompt
from jdistill.tokenizers.documents import (
  adds_bos,
  adds_eos,
  encode_documents,
  num_bytes,
  token_bytes,
)
from jdistill.tokenizers.loading import load, locate, save
from jdistill.tokenizers.vocabulary import (
  check_head,
  fingerprint,
  same_vocabulary,
  vocabulary_difference,
)

__all__ = [
  "adds_bos",
  "adds_eos",
  "check_head",
  "encode_documents",
  "fingerprint",
  "load",
  "locate",
  "num_bytes",
  "render_chat",
  "render_prompt",
  "same_vocabulary",
  "save",
  "token_bytes",
  "vocabulary_difference",
]
