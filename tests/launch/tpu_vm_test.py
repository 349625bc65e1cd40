# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""launch/tpu_vm.sh against two folders that stand for the hosts of a slice.

What is under test is the script: that arguments survive two shells, signals
reach the process, exit codes come back, and lost slices are replaced. The
`gcloud` here knows no more than the script asks of it; whether the real one
takes these flags is not tested.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "tpu_vm.sh"

GCLOUD = """#!/bin/bash
echo "$*" >>"$SLICE/asked"
[ "$1 $2" = "compute tpus" ] || exit 9
what="$3 $4"; shift 4
for word; do
  case $word in
  --worker=all) hosts="0 1" ;;
  --worker=*) hosts=${word#*=} ;;
  --command=*) command=${word#*=} ;;
  esac
done
case $what in
*" create")
  [ -e "$SLICE/state" ] && exit 1
  mkdir -p "$SLICE/0" "$SLICE/1"
  for host in 0 1; do
    mkdir -p "$SLICE/$host/jdistill-venv/bin"
    cp "$SLICE/program" "$SLICE/$host/jdistill-venv/bin/jdistill"
  done
  echo ACTIVE >"$SLICE/state" ;;
*" describe")
  if [ -e "$SLICE/deaf" ]; then
    rm "$SLICE/deaf"
    echo "ERROR: the service does not answer" >&2
    exit 1
  fi
  cat "$SLICE/state" && exit; echo "ERROR: NOT_FOUND" >&2; exit 1 ;;
*" delete") rm -r "$SLICE/state" "$SLICE/0" "$SLICE/1" ;;
*" ssh")
  for host in $hosts; do
    (cd "$SLICE/$host" && PATH=$SLICE/bin:$PATH HOME=$PWD bash -c "$command")
  done ;;
*" scp")
  for host in $hosts; do cp "$1" "$SLICE/$host/${2#*:}"; done ;;
esac
"""

# Ends with the next code of $SLICE/codes of its host, or runs until SIGTERM.
PROGRAM = """#!/usr/bin/env -S python3.real
import json, os, pathlib, signal, sys, time
slice, host = pathlib.Path(os.environ["SLICE"]), pathlib.Path.cwd().parent.name
with (slice / f"arguments-{host}").open("a") as file:
  print(json.dumps(sys.argv[1:]), file=file)
def stop(*_):
  print("saved")
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("started", flush=True)
codes = slice / f"codes-{host}"
code, *rest = codes.read_text().split()
codes.write_text(" ".join(rest))
if code == "preempted":
  if host == "0":
    (slice / "state").write_text("SUSPENDED")
  code = 143
if code == "wait":
  time.sleep(60)
sys.exit(int(code))
"""


@pytest.fixture
def tpu(tmp_path):
  """Runs the script; `tpu.codes(...)` says how the processes will end."""
  (tmp_path / "bin").mkdir()
  programs = {
    "bin/gcloud": GCLOUD,
    "bin/python3": "#!/bin/bash\necho python3 $* >>$SLICE/installed\n",
    "program": PROGRAM,
  }
  for name, text in programs.items():
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  (tmp_path / "bin" / "python3.real").symlink_to(
    os.path.realpath(sys.executable)
  )
  environment = {
    **{k: v for k, v in os.environ.items() if k in ("LANG", "TMPDIR")},
    "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
    "HOME": str(tmp_path),
    "SLICE": str(tmp_path),
    "POLL": "0.1",
  }

  def run(*args, **more):
    return subprocess.run(
      [SCRIPT, *args],
      env=environment | more,
      capture_output=True,
      text=True,
      timeout=60,
    )

  def codes(*words):
    for host in (0, 1):
      (tmp_path / f"codes-{host}").write_text(" ".join(words))

  run.folder, run.codes = tmp_path, codes
  return run


def arguments(tpu, host: int) -> list[list[str]]:
  text = (tpu.folder / f"arguments-{host}").read_text()
  return [json.loads(line) for line in text.splitlines()]


def status(tpu) -> list[str]:
  return tpu("status").stdout.split()


def until(wanted, tpu) -> list[str]:
  for _ in range(100):
    if (found := status(tpu)) == wanted:
      break
    time.sleep(0.1)
  return found


def test_a_run_from_creation_to_deletion(tpu):
  tpu.codes("wait")
  assert tpu("create").returncode == 0
  assert tpu("install").returncode == 0
  assert "[tpu,gcs]" in (tpu.folder / "installed").read_text()
  words = ["x.py", "--a=b c", "it's", '"$HOME"', "", "*", "a;exit 9", "ü\n"]
  assert tpu("train", *words).returncode == 0
  assert until(["ACTIVE", "running", "running"], tpu)[0] == "ACTIVE"
  for _ in range(100):
    logs = [tpu.folder / f"{host}/jdistill.log" for host in (0, 1)]
    if all("started" in log.read_text() for log in logs):
      break
    time.sleep(0.05)
  assert tpu("stop").returncode == 0
  assert until(["ACTIVE", "143", "143"], tpu) == ["ACTIVE", "143", "143"]
  for host in (0, 1):
    assert arguments(tpu, host) == [["train", *words, "--distributed"]]
    assert "saved" in (tpu.folder / f"{host}/jdistill.log").read_text()
  assert tpu("delete").returncode == 0
  assert not (tpu.folder / "state").exists()


def test_keep_goes_on_after_preemption_and_faults(tpu):
  tpu.codes("1", "preempted", "143", "0")
  found = tpu("keep", "train", "x.py", "--workdir", "gs://bucket/run dir")
  assert found.returncode == 0, found.stderr
  words = ["train", "x.py", "--workdir", "gs://bucket/run dir", "--distributed"]
  assert arguments(tpu, 0) == [words] * 4
  asked = (tpu.folder / "asked").read_text()
  assert asked.count("queued-resources create") == 2
  assert asked.count("queued-resources delete") == 1


def test_keep_leaves_a_slice_alone_that_it_cannot_see(tpu):
  tpu.codes("0", "0")
  assert tpu("create").returncode == 0
  (tpu.folder / "deaf").touch()
  found = tpu("keep", "train", "x.py")
  assert found.returncode == 0
  assert "does not answer" in found.stderr
  # Another run on the same slice is not taken for the one that has ended.
  assert tpu("keep", "train", "y.py").returncode == 0
  assert [words[1] for words in arguments(tpu, 0)] == ["x.py", "y.py"]
  asked = (tpu.folder / "asked").read_text()
  assert asked.count("create") == 1
  assert "delete" not in asked


def test_keep_does_not_repeat_a_mistake(tpu):
  tpu.codes("2", "0")
  assert tpu("keep", "train", "x.py").returncode == 2
  assert len(arguments(tpu, 0)) == 1


def test_keep_gives_up_in_the_end(tpu):
  tpu.codes(*["1"] * 30)
  found = tpu("keep", "train", "x.py", FAULTS="2")
  assert found.returncode == 1
  assert len(arguments(tpu, 0)) == 3


@pytest.mark.parametrize(
  ("environment", "wanted", "unwanted"),
  [
    ({}, "queued-resources create jdistill --node-id=jdistill", "--version"),
    ({}, "--spot", "--zone"),
    ({"SPOT": "0"}, "--accelerator-type=v5litepod-16", "--spot"),
    ({"QUEUE": "0"}, "tpu-vm create jdistill", "--node-id"),
    ({"QUEUE": "0"}, "--version=v2-alpha-tpuv5-lite", "--runtime-version"),
    ({"TYPE": "v6e-8"}, "--runtime-version=v2-alpha-tpuv6e", "--project"),
    ({"ZONE": "z", "PROJECT": "p"}, "--project=p --zone=z", "--reserved"),
    ({"CREATE_FLAGS": "--reserved --labels=a=b"}, "--reserved --labels", "z"),
  ],
)
def test_what_is_asked_for(tpu, environment, wanted, unwanted):
  assert tpu("create", **environment).returncode == 0
  asked = (tpu.folder / "asked").read_text().splitlines()[0]
  assert wanted in asked
  assert unwanted not in asked


def test_without_a_word_it_says_what_it_does(tpu):
  found = tpu()
  assert found.returncode == 2
  assert "launch/tpu_vm.sh create" in found.stderr
