# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Whole runs whose teacher has devices of its own."""

import dataclasses
import json
import shutil

import optax
import pytest

from jdistill import config, metrics, optim, sharding, train

TRACKED = ("loss", "grad_norm", "eval/kl", "eval/ppl", "eval/agreement")


class Sgd(optim.Optimizer):
  """Unlike Adam it makes no more of a rounding error than it is."""

  def core(self, axes):
    return optax.sgd(self.rate)


def log(line):
  del line


def rows(workdir):
  return {
    (row["step"], key): row[key]
    for row in metrics.read(workdir)
    for key in TRACKED
    if key in row
  }


@pytest.mark.slow
def test_a_run_goes_on_wherever_its_teacher_lies(world, tmp_path):
  """The same figures, the same text, and a teacher that comes and goes."""
  teacher = config.Teacher(str(world.teacher))
  apart = dataclasses.replace(teacher, mesh=sharding.MeshShape(1, 2, 2))
  lines = []

  def run(name, teacher, steps, log=log):
    changed = world.config(
      teachers={"teacher": teacher},
      steps=steps,
      samples=("The",),
      optimizer=Sgd(lr=3e-3, clip_norm=None),
    )
    train.train(changed, tmp_path / name, log=log)

  run("apart", apart, 4, lines.append)
  said = "teacher: mesh of its own, of 4: data 1, fsdp 2, expert 1, context 1, "
  assert f"{said}tensor 2" in lines
  layout = json.loads((tmp_path / "apart" / "shardings.json").read_text())
  assert (
    layout["mesh"]["data"] == layout["apart"]["teacher"]["mesh"]["fsdp"] * 2
  )
  shutil.copytree(tmp_path / "apart", tmp_path / "back")
  run("back", teacher, 8)
  run("apart", apart, 8)
  run("together", teacher, 8)
  expected = rows(tmp_path / "together")
  assert len(expected) > 8
  for name in ("apart", "back"):
    assert rows(tmp_path / name) == pytest.approx(expected, rel=1e-5), name
  texts = [
    json.loads((tmp_path / name / "samples/continuations.json").read_text())
    for name in ("apart", "back", "together")
  ]
  assert texts[0] == texts[1] == texts[2]
  assert texts[0][0].keys() >= {"teacher", "start", "end"}
