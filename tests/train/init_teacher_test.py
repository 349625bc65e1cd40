# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The teacher "init": the student as it was before its first update."""

import dataclasses

import jax
import numpy as np
import pytest

from jdistill import (
  beds,
  config,
  evaluate,
  methods,
  metrics,
  models,
  optim,
  start,
  train,
  types,
)

CHAIN = beds.MarkovChain(vocab_size=8, order=1, concentration=0.3)
TEXT = beds.BedData(CHAIN, num_documents=64, seq_len=16, batch_size=8)
DECODER = models.DecoderConfig(
  vocab_size=320,
  width=16,
  mlp_width=32,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  segments=(models.Segment.uniform(2),),
)
STUDENTS = {
  "fresh": lambda ref: config.Fresh(DECODER),
  "cut of the first teacher": lambda ref: config.Cut((0, 2)),
  "pretrained": config.Pretrained,
  "adapters": lambda ref: config.Lora(config.Cut(2, ref), rank=2),
}


def log(line):
  del line


@pytest.fixture(autouse=True, scope="module")
def _caches(caches):
  """The runs here are much alike."""


@pytest.mark.parametrize("kind", STUDENTS)
def test_it_is_the_student_at_the_start(world, kind):
  """Of adapters it has none: they start at nothing."""
  ref = str(world.teacher)
  teachers = {"init": config.Teacher("init"), "teacher": config.Teacher(ref)}
  if kind == "pretrained":
    teachers["rounded"] = config.Teacher("init", dtype="bfloat16")
  student = STUDENTS[kind](ref)
  ready = start.prepare(
    world.config(student=student, teachers=teachers, seed=3), None
  )
  ready.close()
  built = ready.built
  with jax.set_mesh(built.mesh):
    loaded = built.load_teachers()
    own = built.init_state(loaded).params["student"]
  if kind == "adapters":
    own = built.models.student.merged(own)
  jax.tree.map(np.testing.assert_array_equal, loaded["init"], own)
  if "rounded" in loaded:
    rounded = jax.tree.map(lambda x: x.astype("bfloat16"), own)
    jax.tree.map(np.testing.assert_array_equal, loaded["rounded"], rounded)


def moving(**changes):
  """A student that moves away from where it began."""
  base = config.Config(
    student=config.Fresh(dataclasses.replace(CHAIN, seed=1)),
    teachers={"before": config.Teacher("init")},
    method=methods.CrossEntropy(),
    data=TEXT,
    evals={"eval": dataclasses.replace(TEXT, part="heldout")},
    optimizer=optim.AdamW(lr=0.3),
    steps=4,
    eval_every=2,
    save_every=2,
  )
  return dataclasses.replace(base, **changes)


def kls(workdir):
  return [r["eval/kl"] for r in metrics.read(workdir) if "eval/kl" in r]


def test_it_stays_while_the_student_moves_also_after_a_resume(tmp_path):
  train.train(moving(), tmp_path / "whole", log=log)
  begin, half, end = kls(tmp_path / "whole")
  assert begin == pytest.approx(0, abs=1e-6)
  assert 0.01 < half < end
  train.train(moving(steps=2), tmp_path / "half", log=log)
  train.train(moving(), tmp_path / "half", log=log)
  assert kls(tmp_path / "half") == [begin, half, end]
  [row] = evaluate.evaluate(str(tmp_path / "half"))
  assert row["teacher"] == "init"
  assert row["kl"] == pytest.approx(end, rel=1e-5)


def test_it_brings_its_own_shape():
  before = config.Teacher("init", architecture=CHAIN)
  with pytest.raises(types.UserError, match=r"teachers.before: .*architecture"):
    start.prepare(moving(teachers={"before": before}), None)
