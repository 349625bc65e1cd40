# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of several stages: one directory, and every stage a run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from jdistill import (
  beds,
  config,
  methods,
  metrics,
  models,
  optim,
  pretrained,
  train,
)

CHAIN = beds.MarkovChain(vocab_size=8, order=1, concentration=0.3)
TEXT = beds.BedData(CHAIN, num_documents=64, seq_len=16, batch_size=8)


def decoder(width):
  return models.DecoderConfig(
    vocab_size=8,
    width=width,
    mlp_width=2 * width,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    segments=(models.Segment.uniform(2),),
  )


def one(**changes):
  base = config.Config(
    student=config.Fresh(decoder(32)),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.KD(),
    data=TEXT,
    evals={"eval": dataclasses.replace(TEXT, part="heldout")},
    optimizer=optim.AdamW(lr=0.01),
    steps=4,
    log_every=1,
    eval_every=2,
    save_every=2,
  )
  return dataclasses.replace(base, **changes)


def two(first=None, **second):
  """An assistant learns from the chain, and a smaller student from it."""
  changes = {
    "student": config.Fresh(decoder(16)),
    "teachers": {"teacher": config.Teacher("stage:assistant")},
    **second,
  }
  return config.Stages(
    {"assistant": one(**(first or {})), "small": one(**changes)}
  )


def quiet(line):
  del line


def go(stages, workdir, **options):
  return train.train(stages, workdir, log=quiet, **options)


def params(ref):
  return pretrained.find(str(ref)).params()


def same(one, two):
  jax.tree.map(np.testing.assert_array_equal, params(one), params(two))


def rows(workdir):
  return [
    (row["step"], row.get("loss"), row.get("eval/kl"))
    for row in metrics.read(workdir)
  ]


@pytest.fixture(autouse=True, scope="module")
def _caches(caches):
  """The runs here are much alike."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole") / "run"
  return workdir, go(two(), workdir)


def test_each_stage_is_a_run_and_the_last_is_the_whole(whole):
  workdir, result = whole
  assert list(result["stages"]) == ["assistant", "small"]
  assert result["evals"] == result["stages"]["small"]["evals"]
  for name, found in result["stages"].items():
    held = json.loads((workdir / name / "result.json").read_text())
    assert held == found
  same(workdir, workdir / "small")
  same(f"{workdir}@2", f"{workdir}/small@2")


def test_the_teacher_is_the_student_of_the_stage_before(whole):
  """Its held-out perplexity as a teacher is that which it ended with."""
  workdir, result = whole
  before, after = result["stages"].values()
  teacher = after["evals"]["eval"]["teacher"]["ppl"]
  assert teacher == pytest.approx(before["evals"]["eval"]["end"]["ppl"])
  assert str(workdir) not in (workdir / "small/models.json").read_text()
  assert str(workdir) not in (workdir / "small/config.json").read_text()


def stopped_in(stages, workdir, name, step, monkeypatch):
  """Runs until SIGTERM is noticed after a step of a stage."""
  asked = train._Loop._told_to_stop

  def ask(self, now):
    if self.workdir.name == name and now == step:
      self.stop.append(143)
    return asked(self, now)

  with monkeypatch.context() as patch:
    patch.setattr(train._Loop, "_told_to_stop", ask)
    with pytest.raises(train.Stopped) as stop:
      go(stages, workdir)
  assert stop.value.code == 143


@pytest.mark.parametrize(("name", "step"), [("assistant", 1), ("small", 3)])
def test_stopped_moved_and_resumed_is_the_same(
  whole, tmp_path, monkeypatch, name, step
):
  stopped_in(two(), tmp_path / "a", name, step, monkeypatch)
  shutil.move(tmp_path / "a", tmp_path / "b")
  result = go(two(), tmp_path / "b")
  assert result == whole[1]
  for stage in result["stages"]:
    same(tmp_path / "b" / stage, whole[0] / stage)
    assert rows(tmp_path / "b" / stage) == rows(whole[0] / stage)
