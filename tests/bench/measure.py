# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""How a benchmark measures: arms in processes of their own that take turns.

A script starts itself once for every arm. Each arm sets itself up alone, one
after another, so compile times do not disturb each other. Then the arms take
turns at one unit of work each, in an order that reverses every round: whatever
else the machine does hits neighbouring turns alike, and ratios are taken
between turns of the same round. Peak memory is the high-water mark of an arm's
process. The whole is repeated with fresh processes, and every figure is the
median over those repeats, with the smallest and the largest beside it under
`*_range`.

An arm says facts, and a turn says figures, as lines of JSON on its standard
output; a line on its standard input asks for a turn.
"""

import argparse
import atexit
import contextlib
import datetime
import json
import os
import pathlib
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

MIB = 2.0**20


class Arm(NamedTuple):
  """What an arm's process is ready to do."""

  work: Callable[[], dict[str, Any] | None]
  """One turn, finished when it returns; what it returns joins the figures."""
  facts: dict[str, Any]
  """What setting up has shown."""


class Taken(NamedTuple):
  """What one process of an arm said."""

  facts: dict[str, Any]
  turns: list[dict[str, Any]]  # each with wall_s and cpu_s; warm-up left out

  def median(self, key: str) -> float:
    return statistics.median(turn[key] for turn in self.turns)


Repeats = list[dict[str, Taken]]


def add_arguments(parser: argparse.ArgumentParser, *, repeats: int) -> None:
  """The flags that all benchmarks share."""
  parser.add_argument(
    "--repeats", type=int, default=repeats, help="fresh processes for each arm"
  )
  parser.add_argument(
    "--gemm", type=int, default=1024, help="size of the machine's own matmul"
  )
  parser.add_argument("--arm", help=argparse.SUPPRESS)


def run(
  args: argparse.Namespace,
  arms: Mapping[str, Callable[[], Arm]],
  *,
  rounds: int,
  warmup: int = 1,
) -> Repeats:
  """Measures every arm, and a plain matmul beside them as the arm "gemm".

  Args:
    args: parsed flags, those of `add_arguments` included.
    arms: what sets up each arm, called in its own process only.
    rounds: measured turns of each arm in each repeat.
    warmup: turns before those, not measured.
  Returns: for each repeat what every arm said. Only the first process gets to
    see it: that of an arm ends in here.
  """
  arms = {**arms, "gemm": lambda: gemm(args.gemm)}
  if args.arm is not None:
    _serve(arms[args.arm])
    raise SystemExit(0)
  args.load = [os.getloadavg()[0]]
  found = [_take_turns(list(arms), rounds, warmup) for _ in range(args.repeats)]
  args.load.append(os.getloadavg()[0])
  return found


def report(
  name: str, args: argparse.Namespace, repeats: Repeats, figures: dict
) -> None:
  """Prints the one line of JSON that a benchmark ends with.

  `load` is the machine's average number of running processes before and
  after: what ran beside the benchmark, and the benchmark itself.
  """
  facts = repeats[0]["gemm"].facts
  shapes = {
    k: v for k, v in vars(args).items() if k not in ("arm", "load", "gemm")
  }
  line = {
    "bench": name,
    "commit": _commit(),
    "date": datetime.date.today().isoformat(),
    "jax": facts["jax"],
    "device": facts["device"],
    "python": platform.python_version(),
    "cpus": len(os.sched_getaffinity(0)),
    "load": [round(x, 2) for x in args.load],
    **ranged("gemm_gflops", _each(repeats, "gemm", "gflops")),
    **ranged("gemm_gflop_per_cpu_s", _each(repeats, "gemm", "gflop_per_cpu_s")),
    "shapes": shapes,
    **figures,
  }
  print(json.dumps(line), flush=True)


def speed(repeats: Repeats, arm: str) -> dict[str, Any]:
  """`cpu_s`, `wall_s` and `peak_rss_mib` of one arm."""
  return {
    **ranged("cpu_s", _each(repeats, arm, "cpu_s")),
    **ranged("wall_s", _each(repeats, arm, "wall_s")),
    **fact(repeats, arm, "peak_rss_mib"),
  }


def fact(repeats: Repeats, arm: str, key: str) -> dict[str, Any]:
  """A number that setting an arm up has shown."""
  return ranged(key, [one[arm].facts[key] for one in repeats])


def ratio(repeats: Repeats, arm: str, to: str, key: str = "cpu_s"):
  """In each repeat, the median over its rounds of arm / to."""
  return [
    statistics.median(
      a[key] / b[key]
      for a, b in zip(one[arm].turns, one[to].turns, strict=True)
    )
    for one in repeats
  ]


def ranged(name: str, values: Sequence[float]) -> dict[str, Any]:
  """The median of the repeats under `name`, the extremes beside it."""
  values = [_rounded(v) for v in values]
  return {
    name: _rounded(statistics.median(values)),
    f"{name}_range": [min(values), max(values)],
  }


def gemm(size: int) -> Arm:
  """A float32 matmul of square matrices: what this machine can do today."""
  import jax
  import jax.numpy as jnp

  a = jnp.ones((size, size), jnp.float32)
  product = jax.jit(lambda a: a @ a).lower(a).compile()
  times = 10

  def work():
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
      product(a).block_until_ready()
    gflop = times * 2 * size**3 / 1e9
    return {
      "gflops": gflop / (time.perf_counter() - wall),
      "gflop_per_cpu_s": gflop / max(time.process_time() - cpu, 1e-9),
    }

  return Arm(work, {})


def peak_rss_mib() -> float:
  """The most memory that this process has held, MiB.

  Linux is asked for the mark of this program alone: that of `getrusage` starts
  with the size of the process which started it.
  """
  status = pathlib.Path("/proc/self/status")
  if status.exists():
    for line in status.read_text().splitlines():
      if line.startswith("VmHWM:"):
        return int(line.split()[1]) / 1024
  unit = 1 if sys.platform == "darwin" else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def scratch() -> pathlib.Path:
  """An empty directory that is gone when the process ends."""
  path = tempfile.mkdtemp()
  atexit.register(shutil.rmtree, path, ignore_errors=True)
  return pathlib.Path(path)


def timed(fn: Callable[[], Any]) -> tuple[Any, float, float]:
  """What `fn` returns, and its wall and CPU seconds."""
  wall, cpu = time.perf_counter(), time.process_time()
  value = fn()
  return value, time.perf_counter() - wall, time.process_time() - cpu


def _serve(make: Callable[[], Arm]) -> None:
  """An arm's process: sets up, then takes a turn for every line it reads."""
  # Whatever a library prints goes to standard error.
  out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

  def say(value: Mapping[str, Any]) -> None:
    out.write(json.dumps(value) + "\n")
    out.flush()

  arm = make()
  import jax

  device = f"{jax.devices()[0].device_kind} ({jax.default_backend()})"
  say({"jax": jax.__version__, "device": device, **arm.facts})
  for _ in sys.stdin:
    more, wall, cpu = timed(arm.work)
    say({"wall_s": wall, "cpu_s": cpu, **(more or {})})
  say({"peak_rss_mib": peak_rss_mib()})


def _take_turns(names: list[str], rounds: int, warmup: int):
  with contextlib.ExitStack() as stack:
    processes, facts = {}, {}
    for name in names:
      processes[name] = stack.enter_context(_start(name))
      facts[name] = _hear(name, processes[name])
    turns = {name: [] for name in names}
    for number in range(warmup + rounds):
      for name in names if number % 2 == 0 else reversed(names):
        processes[name].stdin.write("turn\n")
        processes[name].stdin.flush()
        turns[name].append(_hear(name, processes[name]))
    for name, process in processes.items():
      process.stdin.close()
      facts[name] |= _hear(name, process)
  return {name: Taken(facts[name], turns[name][warmup:]) for name in names}


@contextlib.contextmanager
def _start(name: str):
  """This script again, as an arm; ended whatever happens."""
  process = subprocess.Popen(
    [sys.executable, *sys.argv, "--arm", name],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    yield process
    process.wait(60)
  finally:
    process.kill()
    process.wait()


def _hear(name: str, process: subprocess.Popen) -> dict[str, Any]:
  assert process.stdout is not None
  line = process.stdout.readline()
  if not line:
    raise SystemExit(f"the arm {name} ended early; see its messages above")
  return json.loads(line)


def _each(repeats: Repeats, arm: str, key: str) -> list[float]:
  return [one[arm].median(key) for one in repeats]


def _rounded(value: float) -> float:
  return value if isinstance(value, int) else float(f"{value:.4g}")


def _commit() -> str:
  """The commit that was measured; "+" where files differ from it."""
  here = pathlib.Path(__file__).parent

  def git(*words: str) -> str:
    return subprocess.run(
      ["git", *words], cwd=here, capture_output=True, text=True, check=True
    ).stdout.strip()

  try:
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + "+" * bool(changed)
  except (OSError, subprocess.CalledProcessError):
    return "unknown"
