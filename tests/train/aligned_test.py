# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher with another tokenizer, from the config to the finished run."""

import dataclasses

import numpy as np
import pytest

from jdistill import (
  config,
  data,
  evaluate,
  methods,
  metrics,
  pretrained,
  run,
  start,
  train,
  types,
)


@pytest.fixture
def bytes_run(world):
  """A student of bytes that has two of its teacher's layers."""
  plain = world.config()
  text = dataclasses.replace(plain.data, seq_len=64)
  return dataclasses.replace(
    plain,
    student=config.Retokenised(config.Cut((0, 2))),
    tokenizer="bytes",
    method=methods.Sum(
      {
        "alm": methods.Part(methods.ALM()),
        "latents": methods.Part(methods.ALMLatents(), 0.1),
      }
    ),
    data=data.Aligned(
      text, tokenizer=str(world.teacher), teacher_len=48, batch_size=8
    ),
    evals={
      name: dataclasses.replace(spec, seq_len=64)
      for name, spec in plain.evals.items()
    },
    freeze=(),
    samples=(),
    steps=24,
    eval_every=24,
    log_every=1,
  )


@pytest.mark.slow
def test_a_student_of_bytes_learns(bytes_run, tmp_path):
  result = train.train(bytes_run, tmp_path / "run")
  [name] = bytes_run.evals
  before, after = (result["evals"][name][k] for k in ("start", "end"))
  assert "kl" not in after  # the teacher reads other tokens
  assert after["bits_per_byte"] < before["bits_per_byte"] - 0.3
  rows = [r for r in metrics.read(tmp_path / "run") if "alm/gap" in r]
  gaps = [row["alm/gap"] for row in rows]
  assert np.mean(gaps[-4:]) < 0.8 * np.mean(gaps[:4])
  [row] = evaluate.evaluate(str(tmp_path / "run"))
  np.testing.assert_allclose(
    row["bits_per_byte"], after["bits_per_byte"], rtol=1e-5
  )
  assert row["teacher"] is None
  found = pretrained.find(str(tmp_path / "run"))
  assert found.architecture.vocab_size == 259


def test_what_does_not_fit_is_refused(bytes_run, world, tmp_path):
  def refused(said, **changes):
    with pytest.raises(types.UserError, match=said):
      start.prepare(dataclasses.replace(bytes_run, **changes), tmp_path)

  other = dataclasses.replace(bytes_run.data, tokenizer="bytes")
  refused("data.tokenizer is bytes, but teachers.teacher has", data=other)
  refused("set tokenizer to a model reference", tokenizer=None)
  alone = dataclasses.replace(bytes_run.data.of, batch_size=8)
  refused("needs a view of the text named 'teacher'.*data.Aligned", data=alone)
  same = config.Cut((0, 2))
  kd = methods.KD()
  refused("has another vocabulary than the student", student=same, method=kd,
          tokenizer="bytes")  # fmt: skip


def test_nearest_strings_are_copies(bytes_run, world):
  spec = config.Retokenised(config.Cut((0, 2)), embed="nearest")
  models = run.find_models(dataclasses.replace(bytes_run, student=spec))
  assert models.start is not None
  params = models.start.params()
  found = models.tokens.put_into(params)
  old = np.asarray(params["embedding"]["weight"])
  new = np.asarray(found["embedding"]["weight"])
  assert new.shape == (259, old.shape[1])
  for row in new[:256]:
    assert (np.abs(old - row).max(1) < 1e-6).any()
