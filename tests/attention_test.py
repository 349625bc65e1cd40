# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a config says of attention reaches both models, or is refused."""

import dataclasses
import json

import jax
import pytest

from jdistill import config, config_json, data, methods, pretrained, run, types
from jdistill.models import DecoderConfig, Segment

SMALL = DecoderConfig(
  vocab_size=32,
  width=16,
  mlp_width=16,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  segments=(Segment.uniform(1),),
)


def settings(**changes) -> config.Config:
  fields = {
    "student": config.Fresh(architecture=SMALL),
    "teachers": {"teacher": config.Teacher(architecture=SMALL)},
    "method": methods.KD(),
    "data": data.TextData(seq_len=128, batch_size=8),
    "steps": 2,
  }
  return config.Config(**(fields | changes))


def build(made: config.Config) -> run.Run:
  shape = made.data.batch_size, made.data.seq_len
  whole = jax.ShapeDtypeStruct(shape, "int32")
  mask = jax.ShapeDtypeStruct(shape, "float32")
  view = types.Tokens(whole, whole, mask, whole, whole)
  ids = jax.ShapeDtypeStruct(shape[:1], "int32")
  batch = types.Batch({"student": view}, {}, ids)
  return run.build(made, run.find_models(made), batch)


@pytest.mark.parametrize("attention", ["auto", "xla", "flash"])
def test_both_models_compute_it_alike(attention):
  found = run.find_models(settings(attention=attention))
  assert found.student.attention == attention
  assert found.teachers["teacher"].architecture.attention == attention


def test_rows_that_the_kernel_cannot_take_are_refused():
  short = data.TextData(seq_len=100, batch_size=8)
  assert build(settings(attention="auto", data=short))
  with pytest.raises(types.UserError, match=r"data: a row has 100 positions"):
    build(settings(attention="flash", data=short))
  with pytest.raises(types.UserError, match=r"eval: a row has 100 positions"):
    build(settings(attention="flash", evals={"eval": short}))


def test_probabilities_that_a_method_wants_are_refused_with_the_kernel():
  wants = _Probs()
  assert build(settings(attention="auto", method=wants))
  with pytest.raises(types.UserError, match="'flash', but attention prob"):
    build(settings(attention="flash", method=wants))


class _Probs(methods.KD):
  """A method that looks at attention."""

  def wants(self):
    return {"student": ("attn/0/probs",)}


def test_a_run_s_student_insists_on_nothing(tmp_path):
  """It may be judged on other rows, elsewhere."""
  (tmp_path / "config.json").write_text("{}")
  (tmp_path / "checkpoints").mkdir()
  student = dataclasses.replace(SMALL, attention="flash")
  text = json.dumps(config_json.encode(student))
  (tmp_path / "student.json").write_text(text)
  assert pretrained.find(str(tmp_path)).architecture == SMALL
