# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A stopped run goes on as if nothing had happened, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jdistill import checkpoint, metrics, pretrained, train, types

STEPS = 8


def log(line):
  del line


def student(workdir):
  return pretrained.find(str(workdir)).params()


def assert_same(one, two):
  jax.tree.map(np.testing.assert_array_equal, student(one), student(two))


def rows(workdir):
  """Each row's step and kind; speeds differ from run to run."""
  return [
    (row["step"], row.get("loss"), row.get("eval/kl"))
    for row in metrics.read(workdir)
  ]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole") / "run"
  train.train(world.config(steps=STEPS), workdir, log=log)
  return workdir


@pytest.fixture
def half(world, tmp_path):
  train.train(world.config(), tmp_path / "run", log=log)
  return tmp_path / "run"


def test_more_steps_continue_bit_for_bit(world, whole, half):
  train.train(world.config(steps=STEPS), half, log=log)
  assert_same(half, whole)
  assert rows(half) == rows(whole)


def test_never(world, half):
  before = sorted(half.rglob("*"))
  with pytest.raises(types.UserError, match="--resume is never"):
    train.train(world.config(steps=STEPS), half, resume="never", log=log)
  assert sorted(half.rglob("*")) == before


def test_another_config_is_refused_with_the_difference(world, half):
  before = (half / "config.json").read_bytes()
  with pytest.raises(types.UserError, match="seed: 0 -> 1"):
    train.train(world.config(seed=1), half, log=log)
  assert (half / "config.json").read_bytes() == before


def test_what_may_change_may(world, half):
  changed = world.config(microbatches=1, log_every=2, keep=3, save_every=1)
  train.check_workdir(changed, half, "auto")


def test_damaged_newest_checkpoint(world, whole, half):
  """The one before is taken, with a warning, and the damage is mended."""
  for path in (half / "checkpoints/4/state").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  said = []
  train.train(world.config(steps=STEPS), half, log=said.append)
  assert any("warning" in s and "checkpoints/4" in s for s in said)
  assert any("resuming at step 2" in s for s in said)
  assert_same(half, whole)
  assert rows(half) == rows(whole)


def test_no_readable_checkpoint_is_an_error(world, half):
  for step in (2, 4):
    shutil.rmtree(half / f"checkpoints/{step}/state")
    (half / f"checkpoints/{step}/state").mkdir()
  with pytest.raises(types.UserError, match="no checkpoint of this run"):
    train.train(world.config(steps=STEPS), half, log=log)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_signals_save(world, tmp_path, number, code):
  file, workdir = world.file(tmp_path), tmp_path / "run"
  steps = 100_000
  command = [
    *(sys.executable, "-m", "jdistill.cli", "train", str(file)),
    *("--workdir", str(workdir), "--steps", str(steps)),
    *("--eval-every", str(steps), "--save-every", str(steps)),
  ]
  process = subprocess.Popen(command, env=dict(os.environ))
  while not any("loss" in r for r in metrics.read(workdir)):
    assert process.poll() is None
    time.sleep(0.2)
  process.send_signal(number)
  assert process.wait(120) == code
  with checkpoint.Checkpoints(workdir / "checkpoints", read_only=True) as saved:
    (stopped,) = saved.steps()
  seen = [r["step"] for r in metrics.read(workdir) if "loss" in r]
  assert seen == list(range(1, stopped + 1))
  same = {"eval_every": steps, "save_every": steps}
  until = stopped + 2
  train.train(world.config(steps=until, **same), workdir, log=log)
  other = tmp_path / "other"
  train.train(world.config(steps=until, **same), other, log=log)
  assert_same(workdir, other)
