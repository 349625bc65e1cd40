# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from jdistill import (
  checkpoint,
  data,
  evaluate,
  heldout,
  metrics,
  pretrained,
  refs,
  tokenizers,
  types,
)


def log_softmax(logits):
  logits = logits - logits.max(-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def num_bytes(tokenizer, token):
  """Byte-level tokens: one character of the alphabet is one byte."""
  special = token in tokenizer.all_special_ids
  return 0 if special else len(tokenizer.convert_ids_to_tokens(token))


def by_hand(logits_of, student, teacher, spec, rows=None):
  """The metrics from whole logits in float64, document by document."""
  tokenizer = tokenizers.load(student)
  loader = data.load(
    data.TextData(
      spec.sources, spec.seq_len, batch_size=1, shuffle=False, epochs=1
    ),
    tokenizer,
    seed=0,
  )
  kl, ce, agree, size = [], [], [], 0
  for number, arrays in enumerate(loader):
    if rows is not None and number >= rows:
      break
    arrays = {k: v[0] for k, v in arrays.items()}
    for document in set(arrays["segment_ids"].tolist()) - {0}:
      inside = arrays["segment_ids"] == document
      ids, targets = arrays["tokens"][inside], arrays["targets"][inside]
      keep = arrays["mask"][inside] > 0
      q, p = (log_softmax(logits_of(m, ids)) for m in (student, teacher))
      q, p, targets = q[keep], p[keep], targets[keep]
      kl += (np.exp(p) * (p - q)).sum(-1).tolist()
      ce += (-q[np.arange(len(q)), targets]).tolist()
      agree += (q.argmax(-1) == p.argmax(-1)).tolist()
      size += sum(num_bytes(tokenizer, int(t)) for t in targets)
  return {
    "kl": np.mean(kl),
    "ppl": np.exp(np.mean(ce)),
    "agreement": np.mean(agree),
    "bits_per_byte": np.sum(ce) / np.log(2) / size,
    "tokens": len(ce),
  }


def assert_row(row, expected):
  for key, value in expected.items():
    np.testing.assert_allclose(row[key], value, rtol=2e-4, err_msg=key)


def test_a_run_is_judged_on_its_own_evals_and_teacher(run, teacher, logits_of):
  rows = evaluate.evaluate(str(run))
  assert [row["eval"] for row in rows] == ["eval", "other"]
  assert {row["teacher"] for row in rows} == {teacher}
  specs = checkpoint.read_json(run / "config.json")["evals"]
  for row in rows:
    source = data.Source(specs[row["eval"]]["sources"][0]["ref"])
    spec = data.TextData((source,), seq_len=32)
    assert_row(row, by_hand(logits_of, str(run), teacher, spec))
    assert row["seq_len"] == 32


def test_the_same_numbers_as_the_run_wrote(run):
  [row, _] = evaluate.evaluate(str(run))
  logged = metrics.read(run)[-1]
  for key in ("kl", "ppl", "agreement", "bits_per_byte", "tokens"):
    assert row[key] == pytest.approx(logged[f"eval/{key}"], rel=1e-4)


def test_an_earlier_checkpoint_is_another_model(run):
  at_two, last = (
    evaluate.evaluate(f"{run}@{which}")[0]["kl"] for which in (2, "last")
  )
  logged = {
    r["step"]: r["eval/kl"] for r in metrics.read(run) if "eval/kl" in r
  }
  assert at_two == pytest.approx(logged[2], rel=1e-4)
  assert last == pytest.approx(logged[4], rel=1e-4)
  assert abs(at_two - last) > 1e-3


def test_given_data_rows_and_batches(run, teacher, home, logits_of):
  spec = data.TextData((data.Source(f"text:{home / 'other.txt'}"),), seq_len=24)
  options = evaluate.Options(
    data=f"text:{home / 'other.txt'}", seq_len=24, batch_size=3, max_rows=7
  )
  [row] = evaluate.evaluate(str(run), options)
  assert_row(row, by_hand(logits_of, str(run), teacher, spec, rows=7))
  other = evaluate.Options(data=options.data, seq_len=24, batch_size=8,
                           max_rows=7)  # fmt: skip
  [again] = evaluate.evaluate(str(run), other)
  assert again["tokens"] == row["tokens"]
  assert again["kl"] == pytest.approx(row["kl"], rel=1e-4)


def test_a_model_without_teacher_has_no_kl(teacher, home):
  options = evaluate.Options(data=f"text:{home / 'held.txt'}", seq_len=32)
  [row] = evaluate.evaluate(teacher, options)
  assert row["teacher"] is None
  assert "kl" not in row
  assert "agreement" not in row
  assert row["ppl"] > 1


def test_a_teacher_agrees_with_itself(teacher, home):
  options = evaluate.Options(
    teacher=teacher, data=f"text:{home / 'held.txt'}", seq_len=32
  )
  [row] = evaluate.evaluate(teacher, options)
  assert abs(row["kl"]) < 1e-6
  assert row["agreement"] == 1


def test_another_vocabulary_is_refused(run, other_model):
  options = evaluate.Options(teacher=other_model)
  with pytest.raises(types.UserError, match="different vocabularies: id"):
    evaluate.evaluate(str(run), options)


def test_a_model_that_is_no_run_needs_data(teacher):
  with pytest.raises(types.UserError, match="--data REF"):
    evaluate.evaluate(teacher)


@pytest.mark.parametrize("field", ["seq_len", "batch_size", "max_rows"])
def test_numbers_below_one(field, run):
  with pytest.raises(types.UserError, match=f"{field} is 0"):
    evaluate.evaluate(str(run), evaluate.Options(**{field: 0}))


def test_split_needs_data(run):
  with pytest.raises(types.UserError, match="split"):
    evaluate.evaluate(str(run), evaluate.Options(split="[:5]"))


def test_prompts(tokenizer):
  ids = evaluate.encode_prompt(tokenizer, "the value")
  assert tokenizer.decode(ids) == "the value"
  chat = tokenizer.decode(evaluate.encode_prompt(tokenizer, "hi", chat=True))
  assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
  with pytest.raises(types.UserError, match="no tokens"):
    evaluate.encode_prompt(tokenizer, "")


def test_ends_of_the_tokenizer_and_of_the_model(tokenizer, tmp_path):
  eos = tokenizer.eos_token_id
  assert evaluate.end_ids(tokenizer) == (eos,)
  (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
  location = refs.Located("x", "huggingface", tmp_path)
  assert evaluate.end_ids(tokenizer, location) == tuple(sorted({0, 7, eos}))


def test_continuations_start_and_end_are_merged(
  run, teacher, tmp_path, logits_of
):
  tokenizer = tokenizers.load(run)
  found = {
    name: pretrained.find(ref)
    for name, ref in {"teacher": teacher, "end": str(run)}.items()
  }
  prompts = ["The for statement", "A list"]
  for name, model in found.items():
    rows = evaluate.continuations(
      {name: (model.architecture, model.params())},
      tokenizer,
      prompts,
      max_new_tokens=5,
    )
    path = evaluate.write_continuations(tmp_path, rows)
  written = json.loads(path.read_text())
  assert [row["prompt"] for row in written] == prompts
  assert all(set(row) == {"prompt", "teacher", "end"} for row in written)
  assert any(row["teacher"] != row["end"] for row in written)
  # Greedy, so the first new token is the likeliest one after the prompt.
  ids = evaluate.encode_prompt(tokenizer, prompts[0])
  first = tokenizer.decode([int(logits_of(teacher, ids)[-1].argmax())])
  assert written[0]["teacher"].startswith(first.rstrip("\ufffd"))


def test_rows_say_how_sure_a_mean_is():
  """As resampling rows does; and for rows of equal size as the textbook."""
  rng = np.random.default_rng(0)
  weights = rng.integers(1, 30, size=400).astype(float)
  values = weights * (2 + rng.normal(size=400)) + rng.normal(size=400)

  def sums(v, w):
    spread = np.array([(w > 0).sum(), v @ v, v @ w, w @ w])
    return {
      "kl": types.Mean(v.sum(), w.sum()),
      "spread/kl": types.Mean(spread, 1.0),
    }

  means = []
  for _ in range(4000):
    rows = rng.integers(400, size=400)
    means.append(values[rows].sum() / weights[rows].sum())
  found = heldout.standard_error(sums(values, weights), "kl")
  assert found == pytest.approx(np.std(means), rel=0.05)
  equal = heldout.standard_error(sums(values, np.ones(400)), "kl")
  assert equal == pytest.approx(values.std(ddof=1) / 20, rel=1e-9)
  assert np.isnan(heldout.standard_error(sums(values[:1], weights[:1]), "kl"))


def test_kinds_of_tokens_and_reliability_add_up(run):
  row = evaluate.evaluate(str(run), evaluate.Options(batch_size=2))[0]
  classes = row["by_class"].values()
  count = sum(c["tokens"] for c in classes)
  assert count == row["tokens"]
  for name in ("kl", "ce", "agreement"):
    whole = sum(c["tokens"] * c[name] for c in classes) / count
    assert whole == pytest.approx(row[name], rel=1e-5)
  bins = row["reliability"]
  assert sum(b["tokens"] for b in bins) == row["tokens"]
  error = sum(b["tokens"] * abs(b["gap"]) for b in bins) / row["tokens"]
  assert error == pytest.approx(row["ece"], rel=1e-5)
  assert row["kl_se"] > 0
  assert row["bytes"] == 4 * row["parameters"]


def test_standard_errors_are_of_the_rows_read(run):
  """The same whatever the batch, and by hand from one row at a time."""
  spec = dict(seq_len=32, max_rows=5)
  whole, parts = (
    evaluate.evaluate(str(run), evaluate.Options(batch_size=n, **spec))[0]
    for n in (8, 2)
  )
  assert whole["ce_se"] == pytest.approx(parts["ce_se"], rel=1e-3)
  assert whole["kl_se"] == pytest.approx(parts["kl_se"], rel=1e-3)
