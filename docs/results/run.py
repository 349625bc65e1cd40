# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the experiments of methods.py, from the root of the repository.

python docs/results/run.py            # all that have not finished
python docs/results/run.py gkd kdrl   # these
python docs/results/run.py --list     # their commands, without running any

Each run is the plain `jdistill train` command that is printed, in a process of
its own, in runs/methods/EXPERIMENT/. What has finished is passed over; what was
stopped goes on. First come, by a seed that is not published, the learning rates
of each arm; the seeds are run at the best one. Then `page.py` reads the runs.
"""

import argparse
import multiprocessing
import shlex
import signal
import sys
import time

import experiments
from methods import EXPERIMENTS

PRELOADED = ["jdistill.train", "jdistill.report", "tensorboardX"]


def commands(experiment: experiments.Experiment):
  """The argument lists of `jdistill` in order; those of an arm's seeds wait
  until the runs of its learning rates have finished."""
  for line in experiment.first:
    yield shlex.split(line)
  for name, arm in experiment.arms.items():
    if arm.rate_of is None:
      for rate in experiment.rates:
        yield experiments.trial(experiment, name, rate)
  for name in experiment.arms:
    for seed in experiment.seeds:
      yield experiments.published(experiment, name, seed)


def _run(argv: list[str]) -> None:
  """In a process of its own: the command as if the shell had started it."""
  from jdistill import cli

  sys.argv = ["jdistill", *argv]
  code = cli.main(argv)
  print(f"{time.process_time():.0f} CPU s", flush=True)
  sys.exit(code)


def main() -> int:
  """Runs what is asked for; the exit code is 1 if any run has failed."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("names", nargs="*", help="experiments; all by default")
  parser.add_argument("--list", action="store_true", help="only say what")
  args = parser.parse_args()
  unknown = set(args.names) - set(EXPERIMENTS)
  if unknown:
    parser.error(
      f"unknown: {', '.join(sorted(unknown))}; there are "
      f"{', '.join(EXPERIMENTS)}"
    )
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(PRELOADED)
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  failed = 0
  for name in args.names or EXPERIMENTS:
    for argv in commands(EXPERIMENTS[name]):
      path = experiments.workdir(argv)
      if experiments.finished(path):
        if argv[0] == "train" and experiments.command(path) != argv:
          print(f"{path} was run otherwise; remove it and start again")
          failed += 1
        continue
      print(f"jdistill {shlex.join(argv)}", flush=True)
      if args.list:
        continue
      begin = time.perf_counter()
      process = context.Process(target=_run, args=(argv,))
      process.start()
      try:
        process.join()
      except BaseException:  # told to stop: so is the run, which saves
        process.terminate()
        process.join()
        raise
      failed += process.exitcode != 0
      took = time.perf_counter() - begin
      print(f"  exit code {process.exitcode}, {took:.0f} s", flush=True)
  return int(failed > 0)


if __name__ == "__main__":
  sys.exit(main())
