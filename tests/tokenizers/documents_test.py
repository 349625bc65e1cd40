# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import tokenizers as library
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from jdistill import tokenizers
from jdistill.tokenizers import documents
from jdistill.types import UserError


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_byte_level_round_trips_and_counts_every_byte(byte_level, text):
  (ids,) = tokenizers.encode_documents(byte_level, [text])
  assert byte_level.decode(ids) == text
  table = tokenizers.token_bytes(byte_level)
  assert table[ids].sum() == len(text.encode())
  assert tokenizers.num_bytes(byte_level, ids) == len(text.encode())


@settings(deadline=None, max_examples=200)
@given(st.text().filter(lambda text: "\u2581" not in text))
def test_sentencepiece_counts_every_byte(sentencepiece, text):
  (ids,) = tokenizers.encode_documents(sentencepiece, [text], add_bos=True)
  assert tokenizers.num_bytes(sentencepiece, ids) == len(text.encode())


def test_special_tokens_have_no_bytes(byte_level, sentencepiece):
  table = tokenizers.token_bytes(byte_level)
  assert table.shape == (len(byte_level),)
  assert table.dtype == np.int32
  assert table[byte_level.all_special_ids].tolist() == [0, 0, 0]
  assert (np.delete(table, byte_level.all_special_ids) > 0).all()
  table = tokenizers.token_bytes(sentencepiece)
  named = {"\n\n": 2, "<table>": 7, "<0x0A>": 1, "<bos>": 0}
  for token, size in named.items():
    assert table[sentencepiece.convert_tokens_to_ids(token)] == size


def test_ids_of_a_padded_head_have_no_bytes(byte_level):
  beyond = len(byte_level) + 5
  assert tokenizers.num_bytes(byte_level, [beyond, 3, -1]) == 1


def test_tokenizers_that_lose_text_are_refused():
  backend = library.Tokenizer(models.WordPiece({"a": 0}, unk_token="a"))
  backend.decoder = decoders.WordPiece()
  lossy = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
  with pytest.raises(UserError, match="WordPiece"):
    tokenizers.token_bytes(lossy)


def test_bos_and_eos(byte_level, sentencepiece):
  def ends(tokenizer, **flags):
    (ids,) = tokenizers.encode_documents(tokenizer, ["the"], **flags)
    return ids[0] == tokenizer.bos_token_id, ids[-1] == tokenizer.eos_token_id

  assert ends(byte_level) == (False, False)
  assert ends(sentencepiece) == (True, False)
  assert ends(sentencepiece, add_bos=False, add_eos=True) == (False, True)
  assert ends(byte_level, add_bos=True, add_eos=True) == (True, True)
  (empty,) = tokenizers.encode_documents(byte_level, [""])
  assert empty.shape == (0,)


def test_what_cannot_be_encoded(byte_level):
  with pytest.raises(UserError, match=r"document 1 is not valid Unicode.*2 is"):
    tokenizers.encode_documents(byte_level, ["fine", "ab\ud800"])
  assert "document 1 is int" in str(documents._not_text(["fine", 3]))
  backend = library.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
  backend.pre_tokenizer = pre_tokenizers.Whitespace()
  plain = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
  with pytest.raises(UserError, match="has no BOS token"):
    tokenizers.encode_documents(plain, ["a"], add_bos=True)
  with pytest.raises(UserError, match="has no EOS token"):
    tokenizers.encode_documents(plain, ["a"], add_eos=True)


def test_kinds_of_tokens(byte_level):
  pieces = tokenizers.token_pieces(byte_level)
  classes = [
    tokenizers.CLASSES[i] for i in tokenizers.token_classes(byte_level)
  ]
  assert len(classes) == len(pieces)
  said = {
    b" ": "white space",
    b"\n": "white space",
    b"a": "word part",
    b"7": "number",
    b"?": "punctuation",
    b"\xff": "bytes",
    b"": "special",
  }
  found = {p: c for p, c in zip(pieces, classes, strict=True) if p in said}
  assert found == {p: said[p] for p in found}
  assert set(found) >= {b" ", b"a", b"7", b"?", b"\xff", b""}
  words = [c for p, c in zip(pieces, classes, strict=True)
           if len(p) > 2 and p[:1] == b" " and p[1:].isalpha()]  # fmt: skip
  assert words
  assert set(words) == {"word start"}
