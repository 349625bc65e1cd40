# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What each remat policy costs in time and saves in memory.

  python tests/bench/remat.py --s-layers 12 --seq 512 --batch 4

An arm is the product's own train step with the student's `remat` set to one
policy; models, batch and their flags are those of `step.py`.

Figures of each arm: `cpu_s_per_step`, `wall_s`, `xla_temp_mib` of the compiled
step, `peak_rss_mib` of the process, `compile_s`, and `ratio_to_none` in CPU
seconds.
"""

import argparse
import functools
from typing import get_args

import measure
import pair

from jdistill.models.spec import Remat

POLICIES = get_args(Remat)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  pair.add_arguments(parser)
  parser.add_argument("--policy", nargs="+", choices=POLICIES, default=POLICIES)
  parser.add_argument("--steps", type=int, default=8)
  measure.add_arguments(parser, repeats=2)
  args = parser.parse_args()
  names = dict.fromkeys(["none", *args.policy])
  arms = {name: functools.partial(make_arm, args, name) for name in names}
  repeats = measure.run(args, arms, rounds=args.steps)
  found = {name: figures(repeats, name) for name in names}
  measure.report("remat", args, repeats, {"arms": found})


def make_arm(args: argparse.Namespace, name: str) -> measure.Arm:
  built = pair.build(args, pair.METHODS["forward_kl"], remat=name)
  return pair.step_arm(args, built, built.train_step)


def figures(repeats: measure.Repeats, name: str) -> dict:
  found = measure.speed(repeats, name)
  for end in ("", "_range"):
    found["cpu_s_per_step" + end] = found.pop("cpu_s" + end)
  return {
    **found,
    **measure.fact(repeats, name, "compile_s"),
    **measure.fact(repeats, name, "xla_temp_mib"),
    **measure.ranged("ratio_to_none", measure.ratio(repeats, name, "none")),
  }


if __name__ == "__main__":
  main()
