# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from jdistill import beds, data, types


def rows(spec, tokenizer=None):
  [opened] = spec.open(tokenizer).sources
  return [opened[i] for i in range(len(opened))]


def tokens_file(path, documents):
  path.write_text("".join(json.dumps({"tokens": d}) + "\n" for d in documents))
  return data.TextData(
    (data.Source(f"jsonl:{path}", format="tokens"),),
    seq_len=8,
    packing="pad",
    shuffle=False,
  )


def test_documents_without_a_prompt_are_cut_at_the_prompt_s_length(tmp_path):
  of = tokens_file(tmp_path / "t.jsonl", [[1, 2, 3, 4, 5, 6], [7, 8, 9]])
  [row] = rows(data.Prompts(of, prompt_tokens=3))  # the other is too short
  np.testing.assert_array_equal(row["prompt"], [1, 2, 3])
  assert row["prompt_length"] == 3
  np.testing.assert_array_equal(row["targets"][:5], [2, 3, 4, 5, 6])
  np.testing.assert_array_equal(row["mask"], [0, 0, 1, 1, 1, 0, 0, 0])


def test_what_the_data_do_not_learn_is_the_prompt():
  of = beds.BedData(beds.Arithmetic(), num_documents=8, seq_len=24)
  [opened] = of.open().sources
  documents = {d.tokens.tobytes(): d for d in opened.documents}
  spec = data.Prompts(of, prompt_tokens=16)
  for row in rows(spec):
    n = int(row["segment_ids"].sum())
    text = np.append(row["tokens"][:n], row["targets"][n - 1])
    document = documents[text.astype(np.int32).tobytes()]
    assert row["prompt_length"] == document.prompt_length
    np.testing.assert_array_equal(
      row["prompt"][: document.prompt_length], document.prompt
    )
    assert row["mask"].sum() == len(document.answer)
  assert spec.end_ids == (beds.arithmetic.EOS,)


def test_spans_found_at_once_are_those_of_each_row(tmp_path, monkeypatch):
  """Beside what each row's mask says, one after the other."""
  monkeypatch.setattr(data.text, "_PIECES", 3)  # several blocks
  rng = np.random.default_rng(0)
  tokens, learn, offsets = [], [], [0]
  for _ in range(40):
    size = int(rng.integers(1, 14))
    tokens += rng.integers(2, 9, size).tolist()
    learn += rng.integers(0, 2, size).tolist()
    offsets.append(len(tokens))
  masks = {True: np.array(learn, np.uint8), False: None}
  for never, learnt in ((None, True), (5, True), (5, False), (None, False)):
    held = data.store.TokenStore(
      np.array(tokens, np.int32), np.array(offsets), masks[learnt]
    )
    found = data.text.TokenRows(held, 6, "pad", not_a_target=never)
    expected = [data.prompts._answer(found[i]) for i in range(len(found))]
    np.testing.assert_array_equal(found.answers(), expected)
    assert len({tuple(span) for span in expected}) > 4
  of = beds.BedData(
    beds.Demonstrated(beds.Arithmetic()), num_documents=20, seq_len=24
  )
  [found] = of.open().sources
  expected = [data.prompts._answer(found[i]) for i in range(len(found))]
  np.testing.assert_array_equal(found.answers(), expected)


def test_longer_prompts_are_left_out_and_ids_count_what_is_there():
  of = beds.BedData(beds.Arithmetic(), num_documents=64, seq_len=24)
  lengths = [int(r["prompt_length"]) for r in rows(data.Prompts(of, 23))]
  assert len(set(lengths)) > 1
  limit = int(np.median(lengths))
  some = rows(data.Prompts(of, limit))
  assert len(some) == sum(n <= limit for n in lengths)
  assert [int(r["example_id"]) for r in some] == list(range(len(some)))


def test_batches_carry_prompts_and_may_be_resumed():
  of = beds.BedData(beds.Arithmetic(), num_documents=32, seq_len=24)
  spec = data.Prompts(of, prompt_tokens=16, batch_size=4)
  loader = data.load(spec, seed=0)
  next(loader)
  state = loader.state()
  batch = next(loader)
  assert batch["prompt"].shape == (4, 16)
  assert batch["prompt_length"].shape == (4,)
  loader.restore(state)
  again = next(loader)
  for name in batch:
    np.testing.assert_array_equal(batch[name], again[name])
  loader.close()
  shapes = {k: v.shape for k, v in batch.items() if k.startswith("prompt")}
  assert shapes == {k: (4, *v) for k, v in spec.further().items()}


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"prompt_tokens": 0}, "prompt_tokens is 0"),
    ({"prompt_tokens": 24}, "have 24 places"),
    ({"prompt_tokens": 1}, "none of 8 rows has a prompt"),
  ],
)
def test_refusals(change, said):
  of = beds.BedData(beds.Arithmetic(), num_documents=8, seq_len=24)
  with pytest.raises(types.UserError, match=said):
    data.Prompts(of, **change).open()


def test_packed_rows_are_refused(tmp_path):
  of = tokens_file(tmp_path / "t.jsonl", [[1, 2, 3]])
  packed = data.TextData(of.sources, seq_len=8)
  with pytest.raises(types.UserError, match="packing is 'pack'"):
    data.Prompts(packed, prompt_tokens=2).open()
