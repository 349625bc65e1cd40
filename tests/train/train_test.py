# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run from its start to its end, and what it leaves behind."""

import json

import jax
import numpy as np
import pytest

from jdistill import checkpoint, metrics, pretrained, profiling, train, types

SILENT = {"log": lambda line: None}


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "one"
  lines = []
  result = train.train(world.config(), workdir, log=lines.append)
  return workdir, result, lines


def test_leaves_what_others_need(finished):
  workdir, result, _ = finished
  written = {p.name for p in workdir.iterdir()}
  assert written >= {
    "config.json",
    "student.json",
    "models.json",
    "shardings.json",
    "tokenizer",
    "metrics.jsonl",
    "tensorboard",
    "checkpoints",
    "samples",
    "result.json",
  }
  assert json.loads((workdir / "result.json").read_text()) == result
  student = json.loads((workdir / "student.json").read_text())
  assert student["type"] == "jdistill.models.DecoderConfig"
  assert len(student["segments"][0]["windows"]) == 2
  found = pretrained.find(str(workdir))
  assert found.architecture.num_layers == 2
  assert found.params()["embedding"]["weight"].shape == (320, 16)


def test_rows_of_metrics(finished):
  rows = metrics.read(finished[0])
  trained = [r for r in rows if "loss" in r]
  assert [r["step"] for r in trained] == [1, 2, 3, 4]
  assert all(r["lr"] == pytest.approx(3e-3) for r in trained)
  assert [r["tokens"] for r in trained] == [128 * s for s in (1, 2, 3, 4)]
  judged = [r for r in rows if "eval/kl" in r]
  assert [r["step"] for r in judged] == [0, 4]
  for row in judged:
    assert {"eval/ppl", "eval/agreement", "eval/bits_per_byte"} <= row.keys()
    assert row["eval/ppl"] == pytest.approx(np.exp(row["eval/ce"]))


def test_student_gets_closer(finished):
  evals = finished[1]["evals"]["eval"]
  assert evals["end"]["kl"] < evals["start"]["kl"]
  assert evals["teacher"]["kl"] == 0


def test_says_what_it_does(finished):
  text = "\n".join(finished[2])
  assert "teacher: " in text
  assert "licence" in text
  assert "keeps layers 0, 2" in text
  assert str(finished[0]) in text


def test_keeps_the_newest_checkpoints(finished):
  directory = finished[0] / "checkpoints"
  with checkpoint.Checkpoints(directory, read_only=True) as found:
    assert found.steps() == [2, 4]


def test_finished_run_tells_its_result_again(finished, world, monkeypatch):
  workdir, result, _ = finished
  before = (workdir / "metrics.jsonl").read_text()

  def never(*args, **kwargs):
    raise AssertionError("a finished run trains no more")

  monkeypatch.setattr(train._Loop, "_report", never)
  monkeypatch.setattr(train.heldout.HeldOut, "run", never)
  assert train.train(world.config(), workdir, **SILENT) == result
  assert (workdir / "metrics.jsonl").read_text() == before


def test_best_checkpoint_stays(world, tmp_path):
  """A rate so high that the first evaluation after the start is the best."""
  config = world.config(
    steps=6, eval_every=2, save_every=2, keep=1, select="eval/kl"
  )
  config = world.config(
    steps=6, eval_every=2, save_every=2, keep=1, select="eval/kl",
    optimizer=type(config.optimizer)(lr=2.0),
  )  # fmt: skip
  train.train(config, tmp_path / "run", **SILENT)
  rows = [r for r in metrics.read(tmp_path / "run") if "eval/kl" in r]
  best = min(rows[1:], key=lambda r: r["eval/kl"])["step"]
  with checkpoint.Checkpoints(
    tmp_path / "run/checkpoints", best="eval/kl", read_only=True
  ) as found:
    assert found.best() == best
    assert found.steps() == sorted({best, 6})


def test_diverged_run_says_so(world, tmp_path):
  config = world.config()
  config = world.config(
    optimizer=type(config.optimizer)(lr=1e30, clip_norm=None),
    evals={},
    max_bad_steps=2,
  )
  with pytest.raises(types.UserError, match=r"2 updates in a row .*at step 2"):
    train.train(config, tmp_path / "run", **SILENT)


@pytest.mark.slow
def test_traces_the_steps_that_are_asked_for(world, tmp_path):
  profile = profiling.Profile.parse("2:3")
  workdir = tmp_path / "run"
  train.train(world.config(evals={}), workdir, profile=profile, **SILENT)
  [trace] = (workdir / "profile").rglob("*.xplane.pb")
  data = jax.profiler.ProfileData.from_file(str(trace))
  steps = {
    dict(event.stats)["step_num"]
    for plane in data.planes
    for line in plane.lines
    for event in line.events
    if event.name == "train"
  }
  assert steps == {2, 3}


@pytest.mark.parametrize("text", ["", "a:b", "0:3", "5:4", "1:2:3", "-1"])
def test_steps_that_cannot_be_traced(text):
  with pytest.raises(types.UserError, match="--profile is"):
    profiling.Profile.parse(text)
