# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A stopped run goes on as if nothing had happened, bit for bit."""

import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jdistill import checkpoint, metrics, pretrained, start, train, types

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
  start.check_workdir(changed, half, "auto")
  (teacher,) = changed.teachers.values()
  moved = dataclasses.replace(teacher, place="host", rules={"mlp": None})
  changed = world.config(teachers={"teacher": moved})
  start.check_workdir(changed, half, "auto")
  rounded = dataclasses.replace(teacher, weights="bfloat16")
  with pytest.raises(types.UserError, match=r"teachers\.teacher\.weights"):
    start.check_workdir(
      world.config(teachers={"teacher": rounded}), half, "auto"
    )


def each_file(change, part="state"):
  """Damage to all files in a part of a checkpoint."""

  def damage(newest):
    for path in (newest / part).rglob("*"):
      if path.is_file():
        change(path)

  return damage


def cut_short(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bits(path):
  """One here and there: any one alone may hit a byte that nobody reads."""
  content = bytearray(path.read_bytes())
  for part in range(1, 16):
    content[part * len(content) // 16] ^= 1
  path.write_bytes(content)


def emptied(newest):
  shutil.rmtree(newest)
  newest.mkdir()


DAMAGE = {
  "cut short": each_file(cut_short),
  "empty files": each_file(lambda path: path.write_bytes(b"")),
  "no arrays": lambda newest: shutil.rmtree(newest / "state/d"),
  "arrays lost": lambda newest: shutil.rmtree(
    newest / "state/ocdbt.process_0/d"
  ),
  "bits flipped": each_file(flip_bits, "state/ocdbt.process_0/d"),
  "no manifest": lambda newest: (newest / "state/manifest.ocdbt").unlink(),
  "no position": lambda newest: shutil.rmtree(newest / "position"),
  "empty position": lambda newest: (newest / "position/metadata").write_text(
    ""
  ),
  "empty directory": emptied,
}


# Reads that Orbax begins beside the one that fails are dropped half-way.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_newest_checkpoint(world, whole, half, kind):
  """The one before is taken, with a warning, and the damage is mended."""
  DAMAGE[kind](half / "checkpoints/4")
  said = []
  train.train(world.config(steps=STEPS), half, log=said.append)
  assert any("warning" in s and "checkpoints/4" in s for s in said)
  assert any("resuming at step 2" in s for s in said)
  assert_same(half, whole)
  assert rows(half) == rows(whole)


def test_a_checkpoint_that_was_never_finished(world, whole, half):
  """What a save that was killed leaves is no checkpoint, and goes."""
  newest = half / "checkpoints/4"
  newest.rename(half / "checkpoints/4.orbax-checkpoint-tmp")
  said = []
  train.train(world.config(steps=STEPS), half, log=said.append)
  assert any("resuming at step 2" in s for s in said)
  assert not list((half / "checkpoints").glob("*tmp*"))
  assert_same(half, whole)


def test_killed_while_it_began(world, whole, tmp_path):
  """What such a run leaves is neither a run nor in the way of one."""
  workdir = tmp_path / "run"
  (workdir / "tokenizer.tmp").mkdir(parents=True)
  (workdir / "tokenizer.tmp" / "tokenizer.json").write_text("{")
  (workdir / "config.json").write_bytes((whole / "config.json").read_bytes())
  (workdir / "config.json.tmp").write_text("{")
  train.train(world.config(steps=STEPS), workdir, log=log)
  assert_same(workdir, whole)
  names = {p.name for p in (workdir / "tokenizer").iterdir()}
  assert names == {p.name for p in (whole / "tokenizer").iterdir()}


def test_killed_before_the_config_was_whole(world, tmp_path):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "config.json.tmp").write_text("{")
  start.check_workdir(world.config(), tmp_path / "run", "auto")


def test_a_full_disk(world, whole, half, capfd):
  """One message; what was saved before is whole, and with room it goes on."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  largest = max(p.stat().st_size for p in half.rglob("*") if p.is_file())
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 4, limits[1]))
    with pytest.raises(types.UserError, match="cannot be written: File too la"):
      train.train(world.config(steps=STEPS), half, log=log)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, old)
  with checkpoint.Checkpoints(half / "checkpoints", read_only=True) as saved:
    assert 4 in saved.steps()
  train.train(world.config(steps=STEPS), half, log=log)
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
