# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import pathlib

import numpy as np
import pytest
import tokenizers as library
from tokenizers import models, pre_tokenizers

from jdistill import gguf_file
from jdistill.tokenizers import gguf, gguf_fields
from jdistill.types import UserError

TEXTS = (
  "The for statement isn't 12345 steps;\n\n\tx = 3.14 \u00e9\u4f60\U0001f600",
  "  in  the here there\n\n",
  "<|im_start|>user\nhe<|im_end|>",
)


def back(fields):
  header = gguf_file.Header(pathlib.Path("x.gguf"), 3, fields, {}, 32, 0)
  return gguf.build(header)


@pytest.mark.parametrize("which", ["byte_level", "sentencepiece"])
def test_read_back_it_is_the_same_tokenizer(which, request):
  tokenizer = request.getfixturevalue(which)
  fields = gguf_fields.gguf_fields(tokenizer, len(tokenizer))
  again = back(fields)
  for text in TEXTS:
    assert again.encode(text) == tokenizer.encode(text)
    ids = tokenizer.encode(text)
    assert again.decode(ids) == tokenizer.decode(ids)
  assert again.get_vocab() == tokenizer.get_vocab()
  for name in ("bos", "eos", "unk", "pad"):
    attribute = f"{name}_token_id"
    assert getattr(again, attribute) == getattr(tokenizer, attribute)
  assert again.chat_template == tokenizer.chat_template
  assert set(again.all_special_ids) == set(tokenizer.all_special_ids)


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_the_pre_tokenizer_is_found(pre, write_byte_level):
  original = back(gguf_file.read_header(write_byte_level(pre=pre)).metadata)
  fields = gguf_fields.gguf_fields(original, len(original))
  again = back(fields)
  for text in TEXTS:
    assert again.encode(text) == original.encode(text)


def test_a_padded_head_is_filled_up(byte_level):
  size = len(byte_level)
  fields = gguf_fields.gguf_fields(byte_level, size + 3)
  assert fields["tokenizer.ggml.tokens"][size:] == [
    f"[PAD{i}]" for i in range(size, size + 3)
  ]
  assert fields["tokenizer.ggml.token_type"][size:].tolist() == [5, 5, 5]
  assert len(back(fields)) == size


def test_special_tokens_are_control_tokens(byte_level):
  fields = gguf_fields.gguf_fields(byte_level, len(byte_level))
  kinds = fields["tokenizer.ggml.token_type"]
  control = np.flatnonzero(kinds == 3).tolist()
  assert set(control) == set(byte_level.all_special_ids)


def test_a_head_that_is_too_small(byte_level):
  with pytest.raises(UserError, match="beyond the head's 10 logits"):
    gguf_fields.gguf_fields(byte_level, 10)


def of_backend(backend):
  import transformers

  return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def test_other_kinds_are_refused():
  backend = library.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
  with pytest.raises(UserError, match="is WordLevel"):
    gguf_fields.gguf_fields(of_backend(backend), 1)


def test_a_pre_tokenizer_that_no_file_can_name(trained):
  backend = library.Tokenizer.from_str(trained.to_str())
  backend.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split("e", behavior="isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  with pytest.raises(UserError, match="like none of the pre-tokenizers"):
    gguf_fields.gguf_fields(of_backend(backend), 600)
