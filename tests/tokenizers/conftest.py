# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers, trained here, and GGUF files that carry them."""

import json
import pydoc_data.topics

import gguf
import numpy as np
import pytest
import tokenizers as library
from tokenizers import decoders, models, pre_tokenizers, trainers

from jdistill import tokenizers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content']"
  " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
  "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def trained():
  """A byte-level BPE of 600 tokens that splits digits, as SmolLM2's does."""
  tokenizer = library.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=600,
    show_progress=False,
    special_tokens=SPECIAL,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  texts = list(pydoc_data.topics.topics.values())[:20]
  tokenizer.train_from_iterator(texts, trainer)
  return tokenizer


@pytest.fixture(scope="session")
def write_gguf(tmp_path_factory):
  """Writes a GGUF file that holds a tokenizer and no tensor."""

  def write(model, tokens, types, *, scores=None, merges=None, pre=None, **ids):
    path = tmp_path_factory.mktemp("gguf") / "tokenizer.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if scores is not None:
      writer.add_token_scores(scores)
    if merges is not None:
      writer.add_token_merges(merges)
    if pre is not None:
      writer.add_tokenizer_pre(pre)
    for key, value in ids.items():
      if isinstance(value, bool):
        writer.add_bool(f"tokenizer.ggml.{key}", value)
      elif isinstance(value, int):
        writer.add_uint32(f"tokenizer.ggml.{key}", value)
      else:
        writer.add_chat_template(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path

  return write


def byte_level_fields(trained):
  """A trained tokenizer as a GGUF file's tokens, types and merges."""
  vocabulary = trained.get_vocab()
  tokens = sorted(vocabulary, key=vocabulary.__getitem__)
  types = [3 if token in SPECIAL else 1 for token in tokens]
  model = json.loads(trained.to_str())["model"]
  merges = [" ".join(pair) for pair in model["merges"]]
  return tokens, types, merges


@pytest.fixture(scope="session")
def write_byte_level(trained, write_gguf):
  """Writes the trained tokenizer as a GGUF file, with changes."""

  def write(pre="smollm", **changes):
    tokens, types, merges = byte_level_fields(trained)
    tokens += changes.pop("more_tokens", [])
    types += changes.pop("more_types", [])
    fields = {
      "bos_token_id": 1,
      "eos_token_id": 2,
      "padding_token_id": 2,
      "unknown_token_id": 0,
      "add_bos_token": False,
      "template": CHATML,
      **changes,
    }
    fields = {key: value for key, value in fields.items() if value is not None}
    return write_gguf("gpt2", tokens, types, merges=merges, pre=pre, **fields)

  return write


@pytest.fixture(scope="session")
def byte_level(write_byte_level):
  return tokenizers.load(write_byte_level())


@pytest.fixture(scope="session")
def pieces():
  """A SentencePiece vocabulary: tokens, types and scores by hand."""
  special = ["<pad>", "<eos>", "<bos>", "<unk>"]
  fixed = ["\n\n", "  ", "   ", "<table>"]
  byte = [f"<0x{i:02X}>" for i in range(256)]
  words = ["he", "\u2581t", "th", "\u2581the", "the", "er", "\u2581h", "ere"]
  words += ["\u2581here", "re", "in", "\u2581in", "\u2581\u2581in", "an"]
  letters = ["\u2581", *"abcdefghinrst\n"]
  tokens = [*special, *fixed, *byte, *words, *letters]
  types = [3, 3, 3, 3, 4, 4, 4, 4] + [6] * 256
  types += [1] * (len(words) + len(letters))
  scores = np.full(len(tokens), -1000.0)
  scores[264:] = -np.arange(len(words) + len(letters))
  return tokens, types, scores


@pytest.fixture(scope="session")
def sentencepiece(pieces, write_gguf):
  tokens, types, scores = pieces
  path = write_gguf(
    "llama",
    tokens,
    types,
    scores=scores.tolist(),
    pre="default",
    bos_token_id=2,
    eos_token_id=1,
    unknown_token_id=3,
    padding_token_id=0,
    add_bos_token=True,
    add_space_prefix=False,
  )
  return tokenizers.load(path)
