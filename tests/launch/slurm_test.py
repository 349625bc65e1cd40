# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""launch/slurm.sbatch on a SLURM of its own: one node, this machine.

Skipped without slurmctld and slurmd. A small program stands for jdistill.
"""

import contextlib
import getpass
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm.sbatch"

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SlurmdParameters=config_overrides
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 Gres=gpu:8
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

# Says where it is; ends with the code that its start calls for.
PROGRAM = """#!{python}
import json, os, pathlib, signal, sys, time
folder = pathlib.Path("{folder}")
start = os.environ.get("SLURM_RESTART_COUNT", "0")
own = os.environ["SLURM_PROCID"]
def stop(*_):
  print("saved", flush=True)
  time.sleep(0.5 * int(own))
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
said = folder / f"said-{{start}}-{{own}}"
said.write_text(json.dumps([os.environ["SLURM_NTASKS"], *sys.argv[1:]]))
codes = (folder / "codes").read_text().split()
code = codes[int(start)]
if code == "wait":
  time.sleep(200)
sys.exit(int(code))
"""

needs_slurm = pytest.mark.skipif(
  not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))),
  reason="SLURM is not installed",
)


def free_ports(number: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    found = [stack.enter_context(socket.socket()) for _ in range(number)]
    for one in found:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in found]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  """The environment in which SLURM's commands reach a cluster of our own."""
  folder = tmp_path_factory.mktemp("slurm")
  (folder / "state").mkdir()
  (folder / "spool").mkdir()
  port, node_port = free_ports(2)
  host = socket.gethostname().split(".")[0]
  (folder / "slurm.conf").write_text(
    CONFIG.format(
      folder=folder,
      host=host,
      port=port,
      node_port=node_port,
      user=getpass.getuser(),
    )
  )
  for i in range(8):
    (folder / f"gpu{i}").touch()
  (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
  program = folder / "jdistill"
  program.write_text(PROGRAM.format(python=sys.executable, folder=folder))
  program.chmod(0o755)
  environment = os.environ | {
    "SLURM_CONF": str(folder / "slurm.conf"),
    "JDISTILL": str(program),
  }
  logs = (folder / "daemons.log").open("w")
  daemons = [
    subprocess.Popen([*words], env=environment, stdout=logs, stderr=logs)
    for words in (["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host])
  ]
  try:
    yield folder, environment
  finally:
    for daemon in daemons:
      daemon.terminate()
    for daemon in daemons:
      daemon.wait(20)
    logs.close()


def ask(cluster, *words: str) -> str:
  folder, environment = cluster
  found = subprocess.run(
    words, env=environment, cwd=folder, capture_output=True, text=True
  )
  assert found.returncode == 0, found.stdout + found.stderr
  return found.stdout.strip()


SMALL = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--time=9")


def submit(cluster, codes: str, *args: str, flags: tuple[str, ...] = ()) -> str:
  """Starts a job whose processes end with a code for each start."""
  for old in cluster[0].glob("said-*"):
    old.unlink()
  (cluster[0] / "codes").write_text(codes)
  words = ["sbatch", "--parsable", *SMALL, *flags, str(SCRIPT), *args]
  return ask(cluster, *words)


def job_state(cluster, job: str) -> str:
  text = ask(cluster, "scontrol", "show", "job", job)
  return text.split("JobState=")[1].split()[0]


def log_of(cluster, job: str) -> str:
  path = cluster[0] / f"jdistill-{job}.log"
  return path.read_text() if path.exists() else ""


def until(condition, seconds: float = 200.0):
  end = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < end, "it never came"
    time.sleep(0.2)
  return found


@needs_slurm
def test_sbatch_takes_the_file(cluster):
  folder, environment = cluster
  until(lambda: "idle" in ask(cluster, "sinfo", "--noheader", "--format=%T"))
  found = subprocess.run(
    ["sbatch", "--test-only", *SMALL, SCRIPT, "x.py"],
    env=environment,
    cwd=folder,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  assert "to start at" in found.stderr


def final(cluster, job: str) -> str:
  """The state that a job ends in; queued again, it need not wait."""

  def ended() -> str | None:
    text = ask(cluster, "scontrol", "show", "job", job)
    if "Reason=BeginTime" in text:  # SLURM waits two minutes; two seconds do
      time.sleep(2)
      ask(cluster, "scontrol", "update", f"JobId={job}", "StartTime=now")
    state = text.split("JobState=")[1].split()[0]
    return None if state in ("PENDING", "RUNNING", "COMPLETING") else state

  return until(ended)


def said(cluster, start: int) -> list[list[str]]:
  files = sorted(cluster[0].glob(f"said-{start}-*"))
  return [json.loads(file.read_text()) for file in files]


def wait_for_both(cluster, start: int = 0) -> None:
  until(lambda: len(said(cluster, start)) == 2)
  time.sleep(0.3)


@needs_slurm
def test_143_goes_on_and_arguments_pass_through(cluster):
  words = ["x.py", "--a=b c", "it's", "$HOME", "", "*"]
  job = submit(cluster, "143 143 0", *words)
  assert final(cluster, job) == "COMPLETED"
  for start in (0, 1, 2):
    assert f"start {start}" in log_of(cluster, job)
    expected = ["2", "train", *words, "--distributed"]
    assert said(cluster, start) == [expected, expected]


@needs_slurm
def test_a_mistake_is_not_repeated(cluster):
  job = submit(cluster, "2 0", "x.py")
  assert final(cluster, job) == "FAILED"
  assert not said(cluster, 1)


@needs_slurm
def test_a_preempted_job_saves_and_goes_on(cluster):
  job = submit(cluster, "wait 0", "x.py")
  wait_for_both(cluster)
  ask(cluster, "scontrol", "requeue", job)  # as preemption does
  assert final(cluster, job) == "COMPLETED"
  assert log_of(cluster, job).count("saved") == 2
  assert len(said(cluster, 1)) == 2
  assert not said(cluster, 2)


@needs_slurm
def test_a_cancelled_job_saves_and_stays_so(cluster):
  job = submit(cluster, "wait 0", "x.py")
  wait_for_both(cluster)
  ask(cluster, "scancel", job)
  assert final(cluster, job) == "CANCELLED"
  time.sleep(1)
  assert job_state(cluster, job) == "CANCELLED"
  assert log_of(cluster, job).count("saved") == 2
  assert not said(cluster, 1)


@pytest.mark.slow
@needs_slurm
def test_a_job_whose_time_is_over_saves_and_goes_on(cluster):
  job = submit(
    cluster, "wait 0", "x.py", flags=("--time=2", "--signal=TERM@60")
  )
  assert final(cluster, job) == "COMPLETED"
  assert log_of(cluster, job).count("saved") == 2
