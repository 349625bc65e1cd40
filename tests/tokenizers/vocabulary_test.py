# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import pytest

from jdistill import tokenizers
from jdistill.types import UserError


def test_merges_do_not_enter_and_tokens_do(byte_level, write_byte_level):
  other = tokenizers.load(write_byte_level("llama3"))
  assert tokenizers.fingerprint(other) == tokenizers.fingerprint(byte_level)
  assert tokenizers.same_vocabulary(other, byte_level)
  assert tokenizers.vocabulary_difference(other, byte_level) is None
  more = write_byte_level(more_tokens=["<think>"], more_types=[4])
  longer = tokenizers.load(more)
  assert tokenizers.fingerprint(longer) != tokenizers.fingerprint(byte_level)
  size = len(byte_level)
  assert tokenizers.vocabulary_difference(byte_level, longer) == (
    f"id {size} is nothing in the first vocabulary ({size} tokens) and"
    f" '<think>' in the second ({size + 1} tokens)"
  )


def test_other_vocabularies(byte_level, sentencepiece):
  assert not tokenizers.same_vocabulary(byte_level, sentencepiece)
  difference = tokenizers.vocabulary_difference(byte_level, sentencepiece)
  assert difference.startswith("id 0 is '<|endoftext|>' in the first")


def test_heads(byte_level):
  size = len(byte_level)
  tokenizers.check_head(byte_level, size)
  tokenizers.check_head(byte_level, size + 64)
  with pytest.raises(UserError, match=f"2 of its ids.*{size - 2} logits"):
    tokenizers.check_head(byte_level, size - 2)
