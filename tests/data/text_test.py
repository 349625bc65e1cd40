# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""From files to rows, with a small tokenizer that is made here."""

import json
import string

import numpy as np
import pytest
import tokenizers as hf_tokenizers
import transformers

from jdistill import data, tokenizers, types

TEMPLATE = (
  "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<end>{% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<bos>", "<end>", "<|user|>", "<|assistant|>"]


@pytest.fixture
def tokenizer():
  """One token per character, after the special ones."""
  symbols = [*SPECIAL, *string.ascii_lowercase, " ", "?"]
  vocabulary = {token: index for index, token in enumerate(symbols)}
  backend = hf_tokenizers.Tokenizer(
    hf_tokenizers.models.WordLevel(vocabulary, unk_token="?")
  )
  backend.pre_tokenizer = hf_tokenizers.pre_tokenizers.Split(
    hf_tokenizers.Regex("."), "isolated"
  )
  backend.decoder = hf_tokenizers.decoders.Fuse()
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    bos_token="<bos>",
    eos_token="<end>",
    unk_token="?",
    additional_special_tokens=SPECIAL[2:],
    chat_template=TEMPLATE,
  )


def words(tokenizer, row, name):
  counted = row["mask"] > 0
  return "".join(tokenizer.convert_ids_to_tokens(row[name][counted].tolist()))


def lines(tmp_path, *records):
  path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  return f"jsonl:{path}"


def rows(config, tokenizer, **options):
  loader = data.load(config, tokenizer, seed=0, **options)
  batches = list(loader)
  names = batches[0]
  return [
    {name: b[name][i] for name in names}
    for b in batches
    for i in range(len(b["mask"]))
  ]


def one(ref, **fields):
  source = {k: fields.pop(k) for k in ("format", "split") if k in fields}
  defaults = {"seq_len": 16, "batch_size": 1, "epochs": 1, "shuffle": False}
  return data.TextData((data.Source(ref, **source),), **(defaults | fields))


@pytest.mark.parametrize(
  ("record", "learnt", "prompt"),
  [
    ({"prompt": "ab", "text": "cd", "finish": "end"}, "cd<end>", "ab"),
    ({"prompt": "ab", "text": "cd", "finish": "length"}, "cd", "ab"),
    ({"prompt": "ab", "text": "cd"}, "cd<end>", "ab"),
    (
      {
        "messages": [
          {"role": "user", "content": "a"},
          {"role": "assistant", "content": "b"},
          {"role": "user", "content": "c"},
        ],
        "text": "de",
        "finish": "end",
      },
      "de<end>",
      "<|user|>a<end><|assistant|>b<end><|user|>c<end><|assistant|>",
    ),
    (
      {
        "messages": [{"role": "user", "content": "c"}],
        "text": "de",
        "finish": "stop",
      },
      "de",
      "<|user|>c<end><|assistant|>",
    ),
  ],
)
def test_of_completions_the_answer_is_learnt(
  record, learnt, prompt, tokenizer, tmp_path
):
  source = data.Source(lines(tmp_path, record), format="completion")
  of = data.TextData((source,), 20, "pad", batch_size=1, epochs=1)
  [row] = rows(of, tokenizer)
  assert words(tokenizer, row, "targets") == learnt
  [row] = rows(data.Prompts(of, 18, batch_size=1, epochs=1), tokenizer)
  given = row["prompt"][: row["prompt_length"]].tolist()
  assert "".join(tokenizer.convert_ids_to_tokens(given)) == prompt
  assert words(tokenizer, row, "targets") == learnt


@pytest.mark.parametrize(
  "record",
  [
    {"text": "c"},
    {"prompt": "a", "messages": [{"role": "user", "content": "b"}], "text": ""},
  ],
)
def test_completions_without_one_prompt_are_refused(
  record, tokenizer, tmp_path
):
  source = data.Source(lines(tmp_path, record), format="completion")
  with pytest.raises(types.UserError, match="line 1: a completion has either"):
    data.TextData((source,), 20, batch_size=1).open(tokenizer)


@pytest.mark.parametrize(
  ("bos", "eos", "inputs", "targets"),
  [
    ("auto", True, "abc", "bc<end>"),
    ("never", False, "ab", "bc"),
    ("always", True, "<bos>abc", "abc<end>"),
    ("always", False, "<bos>ab", "abc"),
  ],
)
def test_documents_begin_and_end_as_told(
  tmp_path, tokenizer, bos, eos, inputs, targets
):
  config = one(lines(tmp_path, {"text": "abc"}), bos=bos, eos=eos)
  (row,) = rows(config, tokenizer)
  assert words(tokenizer, row, "tokens") == inputs
  assert words(tokenizer, row, "targets") == targets


def test_bos_inside_a_document_is_no_target(tmp_path, tokenizer):
  config = one(lines(tmp_path, {"text": "ab<bos>cd"}), eos=False)
  (row,) = rows(config, tokenizer)
  assert words(tokenizer, row, "targets") == "bcd"
  assert row["segment_ids"].sum() == 4


def test_one_token_for_both_ends_stays_a_target(tmp_path, tokenizer):
  tokenizer.bos_token = "<end>"
  config = one(lines(tmp_path, {"text": "ab"}), bos="always")
  (row,) = rows(config, tokenizer)
  assert words(tokenizer, row, "targets") == "ab<end>"


def test_only_assistants_are_learnt(tmp_path, tokenizer):
  turns = ["user", "assistant", "user", "assistant"]
  said = ["q", "one", "more", "two"]
  messages = [
    {"role": r, "content": c} for r, c in zip(turns, said, strict=True)
  ]
  config = one(
    lines(tmp_path, {"messages": messages}), format="chat", seq_len=64
  )
  (row,) = rows(config, tokenizer)
  assert words(tokenizer, row, "targets") == "one<end>two<end>"
  assert (row["segment_ids"] > 0).sum() == 4 + 4 + 1 + 3 + 4 + 3 - 1


def test_counts_do_not_depend_on_the_blocks_they_are_made_in(
  tmp_path, tokenizer, monkeypatch
):
  ref = lines(tmp_path, *[{"text": "ab<bos>" * n + "c"} for n in range(1, 9)])
  config = one(ref, seq_len=4, eos=False)
  counts = []
  for pieces in (1, 3, 1000):
    monkeypatch.setattr("jdistill.data.text._PIECES", pieces)
    counts.append(data.load(config, tokenizer, seed=0).num_tokens)
  found = sum(r["mask"].sum() for r in rows(config, tokenizer))
  assert counts == [found] * 3


def test_parts_of_a_chat_without_an_answer_are_left_out(tmp_path, tokenizer):
  messages = [
    {"role": "user", "content": "a" * 40},
    {"role": "assistant", "content": "b"},
  ]
  config = one(lines(tmp_path, {"messages": messages}), format="chat")
  (row,) = rows(config, tokenizer)
  assert words(tokenizer, row, "targets") == "b<end>"


def test_a_mixture_draws_its_shares(tmp_path, tokenizer):
  config = data.TextData(
    (
      data.Source(lines(tmp_path, *[{"text": "a" * 16}] * 5), weight=3.0),
      data.Source(lines(tmp_path, *[{"text": "b" * 16}] * 9), weight=1.0),
    ),
    seq_len=16,
    batch_size=4,
  )
  loader = data.load(config, tokenizer, seed=0)
  a = tokenizer.convert_tokens_to_ids("a")
  for _ in range(30):
    assert (next(loader)["tokens"][:, 0] == a).sum() == 3
  assert loader.num_rows == 14


def test_ids_number_the_rows_of_all_sources(tmp_path, tokenizer):
  sources = tuple(
    data.Source(lines(tmp_path, *[{"text": c * 16}] * 3)) for c in "ab"
  )
  config = data.TextData(
    sources, seq_len=16, batch_size=4, epochs=1, shuffle=False
  )
  found = rows(config, tokenizer)
  assert [int(r["example_id"]) for r in found] == list(range(8))
  assert [r["mask"].sum() for r in found] == [16] * 6 + [0, 0]


def test_tokens_are_kept_for_the_next_start(tmp_path, tokenizer, monkeypatch):
  ref = lines(tmp_path, {"text": "some words"}, {"text": "and more"})
  cache = tmp_path / "cache"
  first = rows(one(ref), tokenizer, cache_dir=cache)
  with monkeypatch.context() as patch:
    patch.setattr(
      tokenizers, "encode_documents", lambda *a, **k: pytest.fail("encoded")
    )
    second = rows(one(ref), tokenizer, cache_dir=cache)
    for a, b in zip(first, second, strict=True):
      for name in a:
        np.testing.assert_array_equal(a[name], b[name])
  # What the tokens depend on makes another entry.
  assert len(list(cache.iterdir())) == 1
  rows(one(ref, eos=False), tokenizer, cache_dir=cache)
  rows(one(ref, split="[:1]"), tokenizer, cache_dir=cache)
  tokenizer.backend_tokenizer.normalizer = hf_tokenizers.normalizers.Lowercase()
  rows(one(ref), tokenizer, cache_dir=cache)
  assert len(list(cache.iterdir())) == 4


def test_texts_and_ids_of_the_caller_give_the_same_rows(tokenizer):
  texts = ["first text", "second one"]
  options = {"seq_len": 32, "batch_size": 1, "epochs": 1}
  ids = [
    np.array([*tokenizer(t)["input_ids"], tokenizer.eos_token_id])
    for t in texts
  ]
  a = list(data.from_documents(texts, tokenizer=tokenizer, **options))
  b = list(data.from_documents(ids, **options))
  for x, y in zip(a, b, strict=True):
    for name in x:
      np.testing.assert_array_equal(x[name], y[name])


def test_a_chat_at_fault_is_named(tmp_path, tokenizer):
  ref = lines(
    tmp_path,
    {"messages": [{"role": "user", "content": "a"}]},
  )
  with pytest.raises(types.UserError, match=r"0\.jsonl, line 1: no assistant"):
    rows(one(ref, format="chat"), tokenizer)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_must_be_positive(tokenizer, weight):
  config = data.TextData(
    (data.Source("stdlib:pydoc", weight=weight),), epochs=1
  )
  with pytest.raises(types.UserError, match=r"data\.sources\.0\.weight is"):
    data.load(config, tokenizer, seed=0)


def test_faults_name_what_is_at_fault(tmp_path, tokenizer):
  ref = lines(tmp_path, {"text": "", "tokens": [5, 99]})
  with pytest.raises(types.UserError, match="1 documents give no token"):
    rows(one(ref), tokenizer)
  with pytest.raises(types.UserError, match="token id 99 is outside the vocab"):
    rows(one(ref, format="tokens"), tokenizer)
  with pytest.raises(types.UserError, match="need a tokenizer"):
    rows(one(ref), None)
  with pytest.raises(types.UserError, match="sources is empty"):
    data.load(data.TextData(()), tokenizer, seed=0)
  tokenizer.eos_token = None
  with pytest.raises(types.UserError, match=r"data\.eos is set, but the tok"):
    rows(one(ref), tokenizer)


def test_two_splits_share_no_document(tmp_path, tokenizer):
  texts = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
  ref = lines(tmp_path, *[{"text": text} for text in texts])

  def documents(split):
    found = rows(one(ref, split=split, packing="pad", eos=False), tokenizer)
    return [
      words(tokenizer, r, "tokens") + words(tokenizer, r, "targets")
      for r in found
    ]

  assert documents("[:90%]") == texts[:90]
  assert documents("[90%:]") == texts[90:]
