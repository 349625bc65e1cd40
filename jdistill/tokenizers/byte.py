# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer without a vocabulary: a token for each byte of UTF-8."""

from typing import TYPE_CHECKING

from jdistill.tokenizers import documents, library

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

BYTES = "bytes"
"""The reference of this tokenizer."""

SPECIAL = ("<pad>", "<bos>", "<eos>")
"""Its further tokens, whose ids follow those of the bytes."""


def build() -> "PreTrainedTokenizerFast":
  """The tokenizer: ids 0 to 255 are the bytes; BOS is not added by itself."""
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers

  backend = tokenizers.Tokenizer(
    models.BPE(vocab=documents.byte_alphabet(), merges=[])
  )
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens(list(SPECIAL))
  pad, bos, eos = SPECIAL
  tokenizer = library.transformers().PreTrainedTokenizerFast(
    tokenizer_object=backend,
    pad_token=pad,
    bos_token=bos,
    eos_token=eos,
    clean_up_tokenization_spaces=False,
  )
  tokenizer.name_or_path = BYTES
  return tokenizer
