# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Small programs as children: their output, exit codes and signals."""

import contextlib
import pathlib
import signal
import subprocess
import sys
import time

import pytest

LOCAL = pathlib.Path(__file__).parents[2] / "launch" / "local.py"

# Says its flags, then does what is asked of the process of this index.
CHILD = """
import os, signal, sys, time
own = int(sys.argv[sys.argv.index("--process-id") + 1])
def ended_by(code):
  def handler(*_):
    print("saved", flush=True)
    sys.exit(code)
  return handler
signal.signal(signal.SIGTERM, ended_by(143))
signal.signal(signal.SIGINT, ended_by(130))
print("ready", flush=True)
"""


def launch(code: str, *flags: str, args: tuple[str, ...] = ()):
  return subprocess.Popen(
    [sys.executable, LOCAL, *flags, sys.executable, "-c", CHILD + code, *args],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def ended(process, within: float = 20.0) -> tuple[int, str, str]:
  out, err = process.communicate(timeout=within)
  return process.returncode, out, err


def wait_until_ready(process, number: int) -> list[int]:
  """Process ids of the children, once they have all said something."""
  for _ in range(number):
    assert "ready" in process.stdout.readline()
  listed = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
  return [int(pid) for pid in listed.read_text().split()]


def gone(pid: int) -> bool:
  with contextlib.suppress(FileNotFoundError, ProcessLookupError):
    state = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return state.rpartition(")")[2].split()[0] == "Z"
  return True


def test_each_process_gets_its_own_place_and_the_rest_untouched():
  args = ("train", "x.py", "--tau=2", "--", "-n", "9", "a b", "")
  code, out, _ = ended(
    launch("print(sys.argv[1:])", "-n", "3", "--port", "7123", args=args)
  )
  assert code == 0
  for i in range(3):
    own = ["--coordinator", "127.0.0.1:7123", "--process-id", str(i)]
    expected = [*args, *own, "--num-processes", "3"]
    assert f"[{i}] {expected}" in out.splitlines()


def test_a_free_port_is_the_same_for_all():
  code, out, _ = ended(launch("print('at', sys.argv[2])"))
  at = {line.split()[-1] for line in out.splitlines() if " at " in line}
  assert code == 0
  assert len(at) == 1
  assert int(at.pop().removeprefix("127.0.0.1:")) > 1024


def test_streams_stay_apart_and_every_line_has_its_process():
  code, out, err = ended(
    launch(
      "print('one\\ntwo'); print('x' * 300_000);"
      "print('bad', file=sys.stderr); sys.stdout.write('no end')"
    )
  )
  assert code == 0
  for i in (0, 1):
    own = [line for line in out.splitlines() if line.startswith(f"[{i}] ")]
    said = [line.removeprefix(f"[{i}] ") for line in own]
    assert said == ["ready", "one", "two", "x" * 300_000, "no end"]
  assert sorted(err.splitlines()) == ["[0] bad", "[1] bad"]


@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_all_are_told_to_stop_once_and_save(number, code):
  process = launch("time.sleep(60)", "-n", "3")
  children = wait_until_ready(process, 3)
  process.send_signal(number)
  found, out, err = ended(process)
  assert found == code
  assert out.count("saved") == 3
  assert not err
  assert all(map(gone, children))


def test_a_terminal_interrupts_each_process_once():
  """Ctrl-C goes to a whole process group: the children are in others."""
  process = launch("import os\nprint(os.getpgrp() == os.getpid())")
  code, out, _ = ended(process)
  assert code == 0
  assert out.count("True") == 2


def test_one_told_to_stop_among_those_that_end_well_is_no_orderly_stop():
  code, _, err = ended(launch("sys.exit(143 if own == 1 else 0)"))
  assert code == 1
  assert "0: exit code 0; 1: exit code 143" in err


@pytest.mark.parametrize("code", [0, 2, 143, 130])
def test_the_code_of_all_is_the_code(code):
  assert ended(launch(f"sys.exit({code})"))[0] == code


def test_a_lost_process_is_named_and_the_others_may_end():
  code, out, err = ended(
    launch("sys.exit(3) if own == 1 else (time.sleep(0.5), print('by hand'))")
  )
  assert code == 3
  assert "process 1 was lost: exit code 3" in err
  assert "[0] by hand" in out
  assert "killing" not in err


def test_the_others_are_killed_with_their_workers():
  process = launch(
    "if own != 1:\n"
    "  import subprocess\n"
    "  worker = subprocess.Popen([sys.executable, '-c', "
    "'import time; time.sleep(60)'])\n"
    "  print('worker', worker.pid, flush=True)\n"
    "  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "time.sleep(0.5)\n"
    "if own == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
    "time.sleep(60)",
    "-n",
    "3",
    "--grace",
    "0.5",
  )
  begin = time.monotonic()
  code, out, err = ended(process)
  assert time.monotonic() - begin < 15
  assert code == 128 + signal.SIGKILL
  assert "process 1 was lost: killed by SIGKILL" in err
  assert "killing process 0, 2" in err
  workers = [
    int(line.split()[-1]) for line in out.splitlines() if "wor" in line
  ]
  assert len(workers) == 2
  assert all(map(gone, workers))


def test_a_signal_to_one_child_names_it():
  process = launch("time.sleep(60)", "--grace", "0.2")
  children = wait_until_ready(process, 2)
  pathlib.Path(f"/proc/{children[0]}/stat").read_text()
  subprocess.run(["kill", "-SEGV", str(children[0])], check=True)
  code, _, err = ended(process)
  assert code == 128 + signal.SIGSEGV
  assert "process 0 was lost: killed by SIGSEGV" in err


def test_an_heir_of_the_output_holds_nobody_up():
  code, _, _ = ended(
    launch(
      "import subprocess\n"
      "subprocess.Popen(['sleep', '3'], start_new_session=True)"
    ),
    within=2.5,
  )
  assert code == 0


@pytest.mark.parametrize(
  "command", [["no-such-program"], ["/"], []], ids=["absent", "folder", "none"]
)
def test_what_cannot_run_is_said_in_a_line(command):
  found = subprocess.run(
    [sys.executable, LOCAL, *command], capture_output=True, text=True
  )
  assert found.returncode == 2
  assert "Traceback" not in found.stderr
