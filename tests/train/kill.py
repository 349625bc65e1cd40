# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Kills runs at random moments and compares what becomes of them.

    python tests/train/kill.py [--kills 20] [--seed 0] [--to DIR] [CONFIG ...]

Runs `jdistill train CONFIG ...` once undisturbed. Then, for each kill, starts
the same command in a directory of its own, kills it with SIGKILL, gives the
command again and compares all arrays of the last checkpoint and all losses with
those of the undisturbed run: they must be the same, bit for bit. CONFIG is a
config file and any of its flags; the default takes a few seconds a run.

A third of the moments are drawn over the length of the whole run (start,
compilation, evaluation included), a third while a checkpoint is being written,
a third right after some step. Exit code 0 if all kills came out right.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = [
  str(ROOT / "configs" / "markov.py"),
  *("--steps", "24", "--save-every", "3", "--eval-every", "6"),
  *("--log-every", "1", "--evals.eval.num-documents", "32"),
]


def start(config: list[str], workdir: pathlib.Path) -> subprocess.Popen:
  command = [sys.executable, "-m", "jdistill.cli", "train", *config]
  with workdir.with_suffix(".txt").open("a") as said:
    return subprocess.Popen(
      [*command, "--workdir", str(workdir)], stdout=said, stderr=said
    )


def finish(config: list[str], workdir: pathlib.Path) -> float:
  """Runs to the end; the seconds it took."""
  begin = time.monotonic()
  code = start(config, workdir).wait()
  if code != 0:
    said = workdir.with_suffix(".txt").read_text()
    raise SystemExit(f"exit code {code} of {workdir}:\n{said}")
  return time.monotonic() - begin


def newest_step(workdir: pathlib.Path) -> int:
  from jdistill import metrics

  return max((row["step"] for row in metrics.read(workdir)), default=-1)


def is_saving(workdir: pathlib.Path) -> bool:
  return any((workdir / "checkpoints").glob("*tmp*"))


def kill_once(config, workdir, draw: random.Random, seconds, kind) -> str:
  """Starts and kills a run; says where it was."""
  process = start(config, workdir)
  if kind == "any time":
    time.sleep(draw.uniform(0, 0.9 * seconds))
  elif kind == "a save":
    saves = draw.randint(0, 5)
    while process.poll() is None and newest_step(workdir) < 3 * saves:
      time.sleep(0.002)
    while process.poll() is None and not is_saving(workdir):
      time.sleep(0.0005)
    time.sleep(draw.uniform(0, 0.03))
  else:
    step = draw.randint(0, 20)
    while process.poll() is None and newest_step(workdir) < step:
      time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.02))
  process.kill()
  code = process.wait()
  lines = workdir.with_suffix(".txt").read_text().splitlines()
  where = lines[-1][:50] if lines else "nothing said yet"
  half = ", half a checkpoint left" if is_saving(workdir) else ""
  return f"{'killed' if code == -9 else 'already over'} after: {where}{half}"


def contents(workdir: pathlib.Path) -> tuple[dict, list]:
  """All arrays of the newest checkpoint by name, and all told of steps."""
  import jax
  import orbax.checkpoint as ocp

  from jdistill import metrics, paths

  steps = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
  newest = max(steps, key=lambda p: int(p.name)).absolute()
  with (
    ocp.PyTreeCheckpointer() as reader,
    warnings.catch_warnings(action="ignore"),  # of where arrays are put
  ):
    tree = reader.restore(newest / "state")
  arrays = {
    paths.name_of(path): (leaf.dtype.str, leaf.shape, leaf.tobytes())
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
  }
  own = ("seconds", "tokens_per_s", "data_wait")
  rows = metrics.read(workdir)
  told = [{k: v for k, v in r.items() if not k.endswith(own)} for r in rows]
  return {"step": newest.name, **arrays}, told


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--to", type=pathlib.Path, help="default: a temporary")
  args, config = parser.parse_known_args(argv)
  config = config or CONFIG
  with tempfile.TemporaryDirectory() as temporary:
    root = args.to or pathlib.Path(temporary)
    os.environ.setdefault("JDISTILL_CACHE", str(root / "cache"))
    root.mkdir(parents=True, exist_ok=True)
    finish(config, root / "first")  # compiles
    seconds = finish(config, root / "whole")
    expected = contents(root / "whole")
    print(f"a run takes {seconds:.1f} s; {len(expected[0])} arrays", flush=True)
    draw, wrong = random.Random(args.seed), 0
    for number in range(args.kills):
      kind = ("any time", "a save", "a step")[number % 3]
      workdir = root / f"kill-{number}"
      where = kill_once(config, workdir, draw, seconds, kind)
      seconds = min(seconds, finish(config, workdir))
      same = contents(workdir) == expected
      wrong += not same
      verdict = "same" if same else "DIFFERENT"
      print(f"{number}: {kind}: {where}: {verdict}", flush=True)
  print(f"{args.kills - wrong} of {args.kills} are the same, bit for bit")
  return int(wrong > 0)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
