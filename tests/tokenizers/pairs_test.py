# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens of one tokenizer in those of another."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jdistill import surgery, tokenizers, types


@pytest.fixture(scope="module")
def one_byte():
  return tokenizers.load("bytes")


@hypothesis.given(text=st.text(st.characters(exclude_categories=("Cs",))))
@hypothesis.settings(
  max_examples=50,
  deadline=None,
  derandomize=True,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_a_byte_is_a_token(one_byte, text):
  hypothesis.assume("<" not in text)  # special tokens spelled out
  [ids] = tokenizers.encode_documents(one_byte, [text], add_eos=False)
  assert bytes(ids.tolist()) == text.encode()
  assert one_byte.decode(ids.tolist()) == text


def test_bytes_have_three_tokens_more(one_byte, tmp_path):
  assert len(one_byte) == 259
  assert tokenizers.token_bytes(one_byte).tolist() == [1] * 256 + [0] * 3
  assert not tokenizers.adds_bos(one_byte)
  [ids] = tokenizers.encode_documents(one_byte, ["a"], add_eos=True)
  assert ids.tolist() == [97, one_byte.eos_token_id]
  tokenizers.save(one_byte, tmp_path)
  again = tokenizers.load(tmp_path)
  assert tokenizers.same_vocabulary(one_byte, again)
  assert again.encode("\u00e9 a") == one_byte.encode("\u00e9 a")


def test_boundaries_are_where_words_end(byte_level, sentencepiece, one_byte):
  for tokenizer in (byte_level, sentencepiece, one_byte):
    size = len(tokenizer) + 3
    found = tokenizers.boundary(tokenizer, size)
    pieces = tokenizers.token_pieces(tokenizer)
    special = set(tokenizer.all_special_ids)
    expected = [
      (piece[:1] in (b" ", b"\t", b"\n") and piece != b"") or i in special
      for i, piece in enumerate(pieces)
    ]
    assert found.tolist() == [*expected, *[False] * (size - len(pieces))]


def test_pieces_give_the_text_back(byte_level, sentencepiece):
  text = "the \u4e16 in  here\n\n\U0001f600"
  for tokenizer in (byte_level, sentencepiece):
    pieces = tokenizers.token_pieces(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(pieces[i] for i in ids) == text.encode()


def test_same_ids_stand_for_the_same(byte_level, sentencepiece):
  found = tokenizers.same(sentencepiece, byte_level, len(sentencepiece) + 2)
  own, other = map(tokenizers.token_pieces, (sentencepiece, byte_level))
  for index, there in enumerate(found[: len(own)]):
    if own[index]:
      assert (there >= 0) == (own[index] in other)
      assert there < 0 or other[there] == own[index]
  assert found[sentencepiece.eos_token_id] == byte_level.eos_token_id
  assert found[sentencepiece.bos_token_id] == byte_level.bos_token_id
  assert found[-2:].tolist() == [-1, -1]


def edits(a: bytes, b: bytes) -> int:
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, start=1):
    last, row[0] = row[0], i
    for j, y in enumerate(b, start=1):
      last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
  return row[-1]


def test_nearest_has_the_fewest_edits(byte_level, sentencepiece, tmp_path):
  size = len(sentencepiece)
  found = tokenizers.nearest(sentencepiece, byte_level, size, tmp_path)
  own, other = map(tokenizers.token_pieces, (sentencepiece, byte_level))
  for index, piece in enumerate(own):
    if piece:
      least = [edits(piece, there) if there else 99 for there in other]
      assert found[index] == int(np.argmin(least)), piece
  [kept] = tmp_path.iterdir()
  assert np.load(kept).tolist() == found.tolist()
  again = tokenizers.nearest(sentencepiece, byte_level, size, tmp_path)
  np.testing.assert_array_equal(again, found)


def test_new_tokens_are_means_of_old_ones(byte_level, sentencepiece, one_byte):
  ids, weights = tokenizers.parts(byte_level, sentencepiece)
  own, other = map(tokenizers.token_pieces, (byte_level, sentencepiece))
  for index, piece in enumerate(own):
    used = weights[index] > 0
    assert b"".join(other[i] for i in ids[index][used]) == piece
    assert not piece or np.isclose(weights[index].sum(), 1)
  # Each byte of a byte-level vocabulary is a token that was there.
  ids, weights = tokenizers.parts(one_byte, byte_level)
  assert ids.shape[1] == 1
  assert weights[:256].all()
  table = np.random.default_rng(0).normal(size=(len(byte_level), 4))
  params = {"embedding": {"weight": jnp.asarray(table)}, "norm": jnp.ones(4)}
  found = surgery.retokenise(params, ids, weights)
  assert found["norm"] is params["norm"]
  rows = np.asarray(found["embedding"]["weight"])
  np.testing.assert_allclose(rows[:256], table[ids[:256, 0]], rtol=1e-6)
  pad = one_byte.convert_tokens_to_ids("<bos>")
  assert weights[pad].any() == (byte_level.bos_token_id is not None)


def test_what_has_no_words_has_no_boundaries(byte_level):
  with pytest.raises(types.UserError, match="nothing says where words end"):
    tokenizers.boundary(byte_level, 0)
