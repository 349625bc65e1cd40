# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import json

import pytest
import transformers

from jdistill import tokenizers
from jdistill.types import UserError

TEXT = "The 12 naïve\n\n  foxes <table> \U0001f98a<|im_end|>"


def edit(path, change):
  tree = json.loads(path.read_text("utf-8"))
  change(tree)
  path.write_text(json.dumps(tree), "utf-8")


@pytest.fixture
def directory(byte_level, tmp_path):
  """A Hugging Face model directory without real weights."""
  tokenizers.save(byte_level, tmp_path)
  (tmp_path / "config.json").write_text(
    json.dumps({"model_type": "llama", "vocab_size": len(byte_level)})
  )
  (tmp_path / "model.safetensors").write_bytes(b"")
  return tmp_path


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
def test_saved_tokenizers_are_the_same_for_transformers(
  name, request, tmp_path
):
  tokenizer = request.getfixturevalue(name)
  tokenizers.save(tokenizer, tmp_path / "saved")
  for again in (
    transformers.AutoTokenizer.from_pretrained(tmp_path / "saved"),
    tokenizers.load(tmp_path / "saved"),
  ):
    assert again(TEXT).input_ids == tokenizer(TEXT).input_ids
    assert again.decode(again.encode(TEXT)) == tokenizer.decode(
      tokenizer.encode(TEXT)
    )
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.chat_template == tokenizer.chat_template
    assert tokenizers.adds_bos(again) == tokenizers.adds_bos(tokenizer)
    assert tokenizers.same_vocabulary(again, tokenizer)


def test_a_model_directory_and_a_run(directory, byte_level, tmp_path):
  loaded = tokenizers.load(str(directory))
  assert loaded.encode(TEXT) == byte_level.encode(TEXT)
  assert loaded.name_or_path == str(directory)
  run = tmp_path / "run"
  (run / "checkpoints").mkdir(parents=True)
  (run / "config.json").write_text("{}")
  with pytest.raises(UserError, match=r"no tokenizer: .*run/tokenizer"):
    tokenizers.load(f"{run}@last")
  tokenizers.save(byte_level, run / "tokenizer")
  assert tokenizers.load(f"{run}@last").encode(TEXT) == loaded.encode(TEXT)


def test_built_in_padding_and_truncation_are_taken_out(directory, byte_level):
  def clip(tree):
    tree["truncation"] = {
      "direction": "Right",
      "max_length": 8,
      "strategy": "LongestFirst",
      "stride": 0,
    }
    tree["padding"] = {
      "strategy": {"Fixed": 8},
      "direction": "Right",
      "pad_to_multiple_of": None,
      "pad_id": 0,
      "pad_type_id": 0,
      "pad_token": "<|endoftext|>",
    }

  edit(directory / "tokenizer.json", clip)
  loaded = tokenizers.load(str(directory))
  for text in ("short", "long " * 30):
    (ids,) = tokenizers.encode_documents(loaded, [text])
    assert ids.tolist() == byte_level.encode(text)
    assert loaded(text).input_ids == byte_level.encode(text)
  tokenizers.save(loaded, directory / "again")
  saved = json.loads((directory / "again" / "tokenizer.json").read_text())
  assert saved["truncation"] is None
  assert saved["padding"] is None


def test_special_tokens_that_the_head_lacks(directory, byte_level):
  size = len(byte_level)
  entry = {"content": "<image>", "special": True, "normalized": False}
  entry |= {"lstrip": False, "rstrip": False, "single_word": False}
  edit(
    directory / "tokenizer.json",
    lambda tree: tree["added_tokens"].append({"id": size, **entry}),
  )

  def mention(tree):
    tree["image_token"] = "<image>"
    tree["extra_special_tokens"] = {"image_token": "<image>"}
    tree["added_tokens_decoder"] = {str(size): entry}

  edit(directory / "tokenizer_config.json", mention)
  loaded = tokenizers.load(str(directory))
  tokenizers.check_head(loaded, size)
  assert max(loaded.encode("an <image> here")) < size
  assert loaded.chat_template == byte_level.chat_template
  edit(directory / "config.json", lambda tree: tree.update(vocab_size=size + 1))
  loaded = tokenizers.load(str(directory))
  assert loaded.encode("<image>") == [size]
  with pytest.raises(UserError, match=f"head's {size} logits.*<image>"):
    tokenizers.check_head(loaded, size)


def test_tokenizers_that_cannot_be_read(directory, tmp_path):
  (directory / "tokenizer.json").write_text("{")
  with pytest.raises(UserError, match=r"tokenizer\.json: not valid JSON"):
    tokenizers.load(str(directory))
  (directory / "tokenizer.json").write_text('{"version": "1.0"}')
  with pytest.raises(UserError, match="cannot be read"):
    tokenizers.load(str(directory))
  (directory / "tokenizer.json").unlink()
  with pytest.raises(UserError, match="has no tokenizer"):
    tokenizers.load(str(directory))
  (tmp_path / "o").mkdir()
  with pytest.raises(UserError, match="Orbax checkpoint has no tokenizer"):
    tokenizers.load(f"orbax:{tmp_path / 'o'}")
