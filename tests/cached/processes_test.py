# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes keep together what one keeps, and lose nothing."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jdistill import cached, metrics
from jdistill.cached import store

CONFIG = """
import dataclasses
from jdistill import beds, config, methods, models, optim, sharding

CHAIN = beds.MarkovChain(vocab_size=12, order=1)
DATA = beds.BedData(CHAIN, num_documents={rows}, seq_len=16, batch_size=8)
LAYERS = dict(vocab_size=12, width=16, mlp_width=24, num_heads=2,
  num_kv_heads=2, head_dim=8, segments=(models.Segment.uniform(1),))


def get_config():
  return config.Config(
    student=config.Fresh(models.DecoderConfig(**LAYERS)),
    teachers={{"teacher": config.Teacher(
      architecture=models.DecoderConfig(**LAYERS, tied=False))}},
    method=methods.KD(), data=DATA,
    evals={{"eval": dataclasses.replace(
      DATA, part="heldout", num_documents=16)}},
    optimizer=optim.AdamW(lr=1e-2), mesh=sharding.MeshShape{mesh}, steps=4,
    log_every=1, eval_every=4,
  )
"""


def start(argv, *, processes=1, devices=4):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  flag = f"--xla_force_host_platform_device_count={devices // processes}"
  env = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
  found = []
  for index in range(processes):
    command = [sys.executable, "-m", "jdistill.cli", *map(str, argv)]
    if processes > 1:
      command += ["--coordinator", f"127.0.0.1:{port}"]
      command += ["--process-id", str(index)]
      command += ["--num-processes", str(processes)]
    found.append(
      subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
      )
    )
  return found


def finish(argv, **options):
  for process in (running := start(argv, **options)):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out.decode()
  return running


def config(folder: pathlib.Path, rows=64, mesh="()"):
  path = folder / "config.py"
  path.write_text(CONFIG.format(rows=rows, mesh=mesh))
  return path


def records(directory):
  found = cached.Cache(directory)
  keys = [k for part in store.parts(directory) for k in part.keys]
  assert len(keys) == len(set(keys))
  format = cached.TopK(5)
  return {
    key: format.decode(found.read(key), 16, 12, found.width) for key in keys
  }


def assert_alike(one, two):
  assert one.keys() == two.keys()
  for key, ours in one.items():
    theirs = two[key]
    np.testing.assert_allclose(
      ours["log_probs"], theirs["log_probs"], atol=2e-3
    )
    assert (ours["ids"] == theirs["ids"]).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["()", "(data=1, fsdp=2, tensor=2)"])
def test_two_processes_keep_what_one_does(tmp_path, mesh):
  path = config(tmp_path, mesh=mesh)
  argv = ["cache", path, "--format", "top_k:5", "--to"]
  finish([*argv, tmp_path / "one"])
  finish([*argv, tmp_path / "two"], processes=2)
  assert_alike(records(tmp_path / "one"), records(tmp_path / "two"))
  flags = ["--teachers.teacher.cache", tmp_path / "two"]
  losses = []
  for count in (1, 2):
    run = tmp_path / f"run-{count}"
    finish(["train", path, "--workdir", run, *flags], processes=count)
    losses.append([r["loss"] for r in metrics.read(run) if "loss" in r])
  assert len(losses[0]) == 4
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_stops_goes_on_without_gaps(tmp_path, how):
  path = config(tmp_path, rows=4096)
  argv = ["cache", path, "--format", "top_k:5", "--to"]
  directory = tmp_path / "c"
  running = start([*argv, directory], processes=2)
  deadline = time.monotonic() + 120
  while not list(directory.glob("0*.json")):
    assert time.monotonic() < deadline
    assert all(p.poll() is None for p in running)
    time.sleep(0.02)
  running[1].send_signal(how)
  codes = [p.wait(90) for p in running]
  for process in running:
    process.stdout.close()
  if how == signal.SIGTERM:
    assert codes == [143, 143]
  else:
    assert codes[1] == -9
    assert codes[0] != 0
  assert not store.read_manifest(directory)["complete"]
  kept = sum(len(part.keys) for part in store.parts(directory))
  assert 0 < kept < 4096 + 16
  finish([*argv, directory])
  finish([*argv, tmp_path / "one"])
  assert_alike(records(tmp_path / "one"), records(directory))
