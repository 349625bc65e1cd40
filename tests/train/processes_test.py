# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes do what one does, end together, and lose nothing."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jdistill import checkpoint, distributed, metrics, pretrained, train

STEPS = 40
RATE = 0.03
BODY = """
  import optax
  class Sgd(optim.Optimizer):
    def core(self, axes):
      return optax.sgd(self.rate)
  cfg.teachers["teacher"] = dataclasses.replace(
    cfg.teachers["teacher"], mesh={own}
  )
  cfg = dataclasses.replace(
    cfg, evals={evals}, mesh=sharding.MeshShape{mesh}, ema=0.9,
    samples=("The statement",), steps={steps}, save_every={save_every},
    eval_every={steps}, max_bad_steps=3,
    optimizer={optimizer}(lr={rate}, clip_norm=None),
  )
"""


WRITING = """
from jdistill import beds, config, data, methods, models, optim, rollout
from jdistill import sampling

CHAIN = beds.MarkovChain(vocab_size=3, order=1)


class Whole(rollout.ExactMatch):
  def __call__(self, answers):
    for at in range(0, len(answers), 4):
      prompts = {a.prompt.tobytes() for a in answers[at : at + 4]}
      assert len(prompts) == 1, "a group is not together"
    return super().__call__(answers)


def get_config():
  student = models.DecoderConfig(
    vocab_size=3, width=8, mlp_width=16, num_heads=2, num_kv_heads=1,
    head_dim=4, segments=(models.Segment.uniform(1),),
    ropes=(models.Rope(theta=100.0),),
  )
  writer = rollout.Student(sampling.Sampling(max_new_tokens=2))
  told = methods.SelfDistillation(rows="told", support="full")
  of = beds.BedData(CHAIN, num_documents=64, seq_len=5)
  return config.Config(
    student=config.Fresh(student),
    teachers={"teacher": config.Teacher("ema")},
    ema=0.9,
    method=methods.Sum({
      "rl": methods.Part(methods.GRPO(), 0.5),
      "self": methods.Part(told, 0.5),
    }),
    data=data.Prompts(of, prompt_tokens=4, batch_size=8),
    rollout=rollout.Reprompted(writer, prompt_tokens=16),
    group_size=4,
    reward=Whole(),
    optimizer=optim.AdamW(lr=1e-2),
    steps=6,
    log_every=1,
  )
"""


class Runs:
  """Starts runs of the small world in processes of their own."""

  def __init__(self, world, root: pathlib.Path):
    self.world, self.root = world, root
    self._started: list[subprocess.Popen] = []

  def config(self, name: str, **changes) -> pathlib.Path:
    values = {"mesh": "()", "steps": STEPS, "save_every": 5}
    values |= {"evals": "cfg.evals", "optimizer": "optim.AdamW", "rate": 3e-3}
    values["own"] = "None"  # the teacher's mesh
    folder = self.root / name
    folder.mkdir(exist_ok=True)
    path = self.world.file(folder, BODY.format(**values | changes).strip())
    text = path.read_text()
    path.write_text(text.replace("import config,", "import config, sharding,"))
    return path

  def start(self, config, workdir, *, processes=1, devices=8, flags=()):
    """Starts `jdistill train`, one or several at once; their outputs."""
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      port = free.getsockname()[1]
    flag = f"--xla_force_host_platform_device_count={devices // processes}"
    found = []
    for index in range(processes):
      command = [
        *(sys.executable, "-m", "jdistill.cli", "train", str(config)),
        *("--workdir", str(workdir), *flags),
      ]
      if processes > 1:
        command += ["--coordinator", f"127.0.0.1:{port}"]
        command += ["--process-id", str(index)]
        command += ["--num-processes", str(processes)]
      said = workdir.with_suffix(f".{index}.txt").open("w")
      env = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
      found.append(subprocess.Popen(command, env=env, stdout=said, stderr=said))
      said.close()
    self._started += found
    return found

  def finish(self, config, workdir, **kwargs):
    """Runs it to its end."""
    for process in self.start(config, workdir, **kwargs):
      assert process.wait(600) == 0, said(workdir)
    return workdir

  def close(self):
    for process in self._started:
      process.kill()
      process.wait()


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
  found = Runs(world, tmp_path_factory.mktemp("processes"))
  yield found
  found.close()


@pytest.fixture(scope="module")
def whole(runs):
  """An uninterrupted run of two processes."""
  return runs.finish(runs.config("whole"), runs.root / "whole-run", processes=2)


def said(workdir) -> str:
  files = sorted(workdir.parent.glob(f"{workdir.name}.*.txt"))
  return "\n".join(f"{file.name}:\n{file.read_text()}" for file in files)


def rows(workdir):
  keep = ("loss", "grad_norm", "eval/kl", "eval/ce", "eval/agreement")
  return {
    (row["step"], key): row[key]
    for row in metrics.read(workdir)
    for key in keep
    if key in row
  }


def assert_close(one, two):
  """All losses, gradients' norms and evaluations of two runs."""
  first, second = rows(one), rows(two)
  assert first.keys() == second.keys()
  for key, value in first.items():
    assert second[key] == pytest.approx(value, rel=1e-5), key


def student(workdir):
  return pretrained.find(str(workdir)).params()


def assert_same(one, two):
  jax.tree.map(np.testing.assert_array_equal, student(one), student(two))


def files(workdir):
  return {
    str(path.relative_to(workdir)).partition(".tfevents")[0].split("ocdbt")[0]
    for path in workdir.rglob("*")
    if path.is_file() and "checkpoints" not in path.parts
  }


def until_step(workdir, step, processes):
  """Waits until so many steps are told of."""
  deadline = time.monotonic() + 200
  while max([r["step"] for r in metrics.read(workdir)], default=0) < step:
    assert all(p.poll() is None for p in processes), said(workdir)
    assert time.monotonic() < deadline, said(workdir)
    time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("mesh", "own"),
  [
    ("()", None),
    ("(data=2, fsdp=2, tensor=2)", None),
    ("(data=1, fsdp=1, tensor=8)", None),
    ("()", "(data=1, fsdp=4)"),
    ("(data=2, tensor=2)", "(fsdp=2, data=1, tensor=2)"),
    ("(data=1, fsdp=2, tensor=3)", "(data=2)"),
  ],
  ids=[
    "data",
    "three axes",
    "tensor spans both",
    "teacher apart",
    "both tensor",
    "small teacher",
  ],
)
def test_two_processes_equal_one(runs, mesh, own):
  name = f"{mesh}{own}".replace(" ", "")
  changes = {
    "steps": 2,
    "save_every": 1,
    "optimizer": "Sgd",
    "mesh": mesh,
    "own": f"sharding.MeshShape{own}" if own else None,
    "rate": RATE,
  }
  config = runs.config(f"equal{name}", **changes)
  two = runs.finish(config, runs.root / f"two{name}", processes=2)
  one = runs.finish(config, runs.root / f"one{name}")
  assert_close(one, two)
  ours, theirs = (jax.tree.leaves(student(f"{p}@1")) for p in (one, two))
  errors = [np.sum((a - b) ** 2) for a, b in zip(ours, theirs, strict=True)]
  norm = rows(one)[1, "grad_norm"]
  assert np.sqrt(np.sum(errors)) < 1e-5 * RATE * norm
  assert files(one) == files(two)
  for name in ("samples/eval-00000000.json", "samples/continuations.json"):
    ours, theirs = (json.loads((p / name).read_text()) for p in (one, two))
    if isinstance(ours, dict):
      assert ours["text"] == theirs["text"]
      np.testing.assert_allclose(ours["kl"], theirs["kl"], atol=1e-4)
    else:
      assert ours == theirs
  lines = said(two)
  assert "[0] step 2/2" in lines
  assert "[1] step 2/2" in lines


@pytest.mark.slow
def test_groups_are_judged_by_the_process_that_has_them(runs):
  config = runs.root / "writing.py"
  config.write_text(WRITING)
  one, two = (
    runs.finish(config, runs.root / f"wrote-{n}", devices=4, processes=n)
    for n in (1, 2)
  )
  ours, theirs = metrics.read(one), metrics.read(two)
  assert len(ours) == len(theirs) == 6
  seconds = ("seconds", "_per_s")
  for row, other in zip(ours, theirs, strict=True):
    assert row.keys() == other.keys()
    for key, value in row.items():
      if not key.endswith(seconds):
        assert other[key] == pytest.approx(value, rel=1e-5, abs=1e-7), key
  assert all(0 < row["rollout/reward"] < 1 for row in ours)
  assert any(row["rl/policy"] for row in ours)
  assert all(0 < row["rollout/solved"] < 1 for row in ours)


@pytest.mark.slow
def test_sigterm_to_one_saves_both(runs, whole):
  config, workdir = runs.config("term"), runs.root / "term-run"
  processes = runs.start(config, workdir, processes=2)
  until_step(workdir, 12, processes)
  processes[1].send_signal(signal.SIGTERM)
  assert [p.wait(60) for p in processes] == [143, 143], said(workdir)
  with checkpoint.Checkpoints(workdir / "checkpoints", read_only=True) as saved:
    newest = saved.steps()[-1]
  assert 12 <= newest < STEPS
  assert said(workdir).count(f"saved at step {newest} in") == 2
  runs.finish(config, workdir, processes=2)
  assert_same(workdir, whole)
  assert rows(workdir) == rows(whole)


@pytest.mark.slow
def test_stages_stop_and_go_on_together(runs):
  path = runs.config("stages", steps=8)
  text = path.read_text().replace(
    "return cfg",
    """small = dataclasses.replace(
    cfg,
    student=config.Cut(1, "stage:first"),
    teachers={"teacher": config.Teacher("stage:first")},
    steps=40,
  )
  return config.Stages({"first": cfg, "small": small})""",
  )
  path.write_text(text)
  one = runs.finish(path, runs.root / "stages-one", processes=2)
  workdir = runs.root / "stages-run"
  processes = runs.start(path, workdir, processes=2)
  until_step(workdir / "small", 3, processes)
  processes[1].send_signal(signal.SIGTERM)
  assert [p.wait(60) for p in processes] == [143, 143], said(workdir)
  assert said(workdir).count(f"in {workdir / 'small'}; the same") == 2
  runs.finish(path, workdir, processes=2)
  assert "stage first: finished before, 8 steps" in said(workdir)
  for stage in ("first", "small"):
    assert_same(workdir / stage, one / stage)
    assert rows(workdir / stage) == rows(one / stage)
    assert (workdir / stage / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_takes_the_others_along(runs, whole, victim):
  config, workdir = runs.config(f"kill{victim}"), runs.root / f"kill{victim}-r"
  processes = runs.start(config, workdir, processes=2)
  until_step(workdir, 12, processes)
  processes[victim].kill()
  begin = time.monotonic()
  assert processes[1 - victim].wait(60) != 0
  assert time.monotonic() - begin < 60
  lines = said(workdir)
  if victim == 0:
    assert "leader task is process 0" in lines
    assert "the leader task was preempted/died" in lines
  else:
    assert "nothing heard from process 1" in lines
  runs.finish(config, workdir, processes=2)
  assert "resuming at step" in said(workdir)
  assert_same(workdir, whole)
  assert rows(workdir) == rows(whole)


@pytest.fixture(scope="module")
def further(runs, whole):
  """`whole`, saved by two processes on eight devices, taken further."""
  return continued(runs, whole, processes=2)


def continued(runs, whole, *, processes=1, devices=8):
  workdir = runs.root / f"on-{processes}-{devices}"
  shutil.copytree(whole, workdir)
  config, flags = runs.config("whole"), ("--steps", str(STEPS + 4))
  runs.finish(
    config, workdir, processes=processes, devices=devices, flags=flags
  )
  assert f"resuming at step {STEPS} of" in said(workdir)
  return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
  ("processes", "devices"), [(1, 8), (4, 8), (1, 4), (1, 2), (1, 1)]
)
def test_resumed_by_others(runs, whole, further, processes, devices):
  workdir = continued(runs, whole, processes=processes, devices=devices)
  assert_close(further, workdir)


@pytest.mark.slow
def test_a_checkpoint_that_one_process_cannot_read(runs, whole):
  """All go back to the one before."""
  workdir = runs.root / "part-run"
  shutil.copytree(whole, workdir)
  damaged = 0
  newest = workdir / f"checkpoints/{STEPS}/state/ocdbt.process_1"
  for path in newest.rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:10])
      damaged += 1
  assert damaged
  runs.finish(runs.config("whole"), workdir, processes=2)
  lines = said(workdir)
  for index in (0, 1):
    assert f"[{index}] warning: checkpoint" in lines
    assert f"[{index}] resuming at step {STEPS - 5}" in lines
  assert_same(workdir, whole)


@pytest.mark.slow
def test_an_error_of_one_ends_both_and_is_named(runs):
  good = runs.config("good")
  bad = runs.config("bad")
  bad.write_text(bad.read_text().replace("lr=0.003,", "no=1,"))
  workdir = runs.root / "error-run"
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  processes = []
  for index, config in enumerate((good, bad)):
    command = [
      *(sys.executable, "-m", "jdistill.cli", "train", str(config)),
      *("--workdir", str(workdir), "--coordinator", f"127.0.0.1:{port}"),
      *("--process-id", str(index), "--num-processes", "2"),
    ]
    processes.append(
      subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    )
  outputs = [p.communicate(timeout=100)[1] for p in processes]
  assert [p.returncode for p in processes] == [2, 2], outputs
  assert "process 1 has ended: config file" in outputs[0]


@pytest.mark.parametrize(
  ("flags", "expected"),
  [
    (["--coordinator", "h:1"], "--process-id, --num-processes is missing"),
    (["--process-id", "0"], "--coordinator, --num-processes is missing"),
    (["--distributed", "--process-id", "0"], "find.* out by itself"),
    (
      ["--coordinator", "h", "--process-id", "0", "--num-processes", "2"],
      "expected host:port",
    ),
    (
      ["--coordinator", "h:1", "--process-id", "2", "--num-processes", "2"],
      "--process-id is 2 of --num-processes 2",
    ),
  ],
)
def test_flags_that_do_not_fit_together(capsys, flags, expected):
  from jdistill import cli

  assert cli.main(["train", "none.py", *flags]) == 2
  shown = capsys.readouterr().err
  assert len(shown.splitlines()) == 1
  import re

  assert re.search(expected, shown), shown


def test_one_process_decides_alone():
  assert distributed.decide(lambda: [1, "two"]) == [1, "two"]
  assert distributed.all_of(True)
  assert not distributed.all_of(False)
  assert train.Stopped(143, 2, pathlib.Path()).code == 143
