# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from jdistill.sampling.stops import Text

WORDS = {257: "the end"}


class Bytes:
  """A tokenizer whose tokens are bytes; 0 is special, 256 and up are words."""

  def decode(self, ids, skip_special_tokens):
    assert skip_special_tokens
    parts = [WORDS[i].encode() if i > 255 else bytes([i]) for i in ids if i]
    return b"".join(parts).decode("utf-8", errors="replace")


def run(tokens, stop=(), by=1):
  """The text, piece by piece, and its state."""
  text, pieces = Text(Bytes(), stop), []
  for start in range(0, len(tokens), by):
    text.add(tokens[start : start + by])
    pieces.append(text.fresh())
  pieces.append(text.fresh(last=True))
  return text, pieces


@pytest.mark.parametrize("by", [1, 2, 5, 100])
@pytest.mark.parametrize(
  ("stop", "shown", "kept"),
  [
    ((), "a b\nc the endx", 14),
    (("\n",), "a b", 3),
    (("b\nc",), "a ", 2),
    (("end",), "a b\nc the ", 6),  # begins inside a token
    (("c the",), "a b\nc"[:-1], 4),  # ends inside a token
    (("dx", "c"), "a b\n", 4),  # the first to begin
    (("nowhere", "endless"), "a b\nc the endx", 14),
  ],
)
def test_texts_end_before_the_first_stop_string(stop, shown, kept, by):
  tokens = [*b"a b\nc ", 257, *b"x"]
  kept = min(kept, len(tokens))
  text, pieces = run(tokens, stop, by)
  assert "".join(pieces) == text.text == shown
  assert text.tokens == tokens[:kept]
  assert text.stopped == (shown != "a b\nc the endx")


def test_whole_characters_are_shown():
  text, pieces = run(list("aé😀b".encode()))
  assert pieces == ["a", "", "é", "", "", "", "😀", "b", ""]
  assert text.text == "aé😀b"
  broken, pieces = run(list("é".encode())[:1])
  assert pieces == ["", "\ufffd"]
  assert not broken.stopped


def test_a_stop_string_may_follow_what_was_half_a_character():
  text, pieces = run(list("abc😀".encode()), ("c😀",))
  assert "".join(pieces) == text.text == "ab"
  assert text.tokens == list(b"ab")


def test_what_may_become_a_stop_string_is_held_back():
  _, pieces = run(list(b"xENyEND"), ("END",))
  assert pieces == ["x", "", "", "ENy", "", "", "", ""]
  _, pieces = run(list(b"xEN"), ("END",))
  assert pieces == ["x", "", "", "EN"]


def test_special_tokens_are_no_text_and_stay():
  text, pieces = run([97, 0])
  assert "".join(pieces) == "a"
  assert text.tokens == [97, 0]


def test_nothing_is_added_behind_a_stop():
  text, _ = run(list(b"a.b.c"), (".",))
  assert text.text == "a"
  text.add([98])
  assert text.tokens == [97]
