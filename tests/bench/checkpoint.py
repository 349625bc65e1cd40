# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What an asynchronous save costs the steps around it, and a restore.

  python tests/bench/checkpoint.py --steps 10 --every 100

A turn makes `--steps` steps, saves through `jdistill.checkpoint`, and goes on
with at least as many until the checkpoint is on disk; then it restores it.
Models and batch are those of `step.py`, and so are their flags.

Figures, medians over the turns:
  step_s: a step with no save under way.
  stall_s: until the call that saves returns; stall_in_steps: in steps.
  contention_s: what the steps during the writing took longer than others.
  cost: (stall + contention) / (`--every` steps); cost_cpu: the same of CPU
    seconds, the writing included.
  write_s: from the call until all is on disk, beside running steps.
  restore_s: reading it back. checkpoint_mib: what lies on disk.
  equal: whether all that was read back is bit for bit what was saved, although
    later steps reused its memory.
"""

import argparse
import functools
import pathlib
import threading
import time

import jax
import measure
import numpy as np
import pair

from jdistill import checkpoint

SECONDS = ("step_s", "stall_s", "contention_s", "write_s", "restore_s")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  pair.add_arguments(parser)
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument(
    "--every", type=int, default=100, help="steps from save to save"
  )
  parser.add_argument("--saves", type=int, default=3)
  measure.add_arguments(parser, repeats=2)
  args = parser.parse_args()
  arms = {"save": functools.partial(make_arm, args)}
  repeats = measure.run(args, arms, rounds=args.saves)
  measure.report("checkpoint", args, repeats, figures(repeats))


def make_arm(args: argparse.Namespace) -> measure.Arm:
  built = pair.build(args, pair.METHODS["forward_kl"])
  batch = jax.device_put(pair.tokens(args))
  with jax.set_mesh(built.mesh):
    teacher_params = built.load_teachers()
    state = built.init_state(teacher_params)
  directory = measure.scratch()
  saved = checkpoint.Checkpoints(directory, keep=1)

  def one_step() -> None:
    nonlocal state
    with jax.set_mesh(built.mesh):
      state, _ = jax.block_until_ready(
        built.train_step(state, teacher_params, batch)
      )

  def work() -> dict:
    plain = [measure.timed(one_step)[1:] for _ in range(args.steps)]
    number, before = int(state.step), jax.tree.map(np.array, state)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    saved.save(number, state, {})
    stall = time.perf_counter() - begin
    writing = threading.Thread(target=saved.wait)
    writing.start()
    beside, write_s = [], None
    while len(beside) < args.steps or write_s is None:
      beside.append(measure.timed(one_step)[1])
      if write_s is None and not writing.is_alive():
        write_s = time.perf_counter() - begin
    wall_s, cpu_s = np.median(plain, axis=0).tolist()
    cpu = time.process_time() - begin_cpu - len(beside) * cpu_s
    restored, restore_s, _ = measure.timed(
      lambda: jax.block_until_ready(saved.restore(number, like(built)).state)
    )
    every = args.every
    contention = sum(beside) - len(beside) * wall_s
    return {
      "step_s": wall_s,
      "stall_s": stall,
      "stall_in_steps": stall / wall_s,
      "contention_s": contention,
      "write_s": write_s,
      "restore_s": restore_s,
      "cost": (stall + contention) / (every * wall_s),
      "cost_cpu": cpu / (every * cpu_s),
      "checkpoint_mib": size_mib(directory / str(number)),
      "equal": all(
        jax.tree.leaves(jax.tree.map(np.array_equal, before, restored))
      ),
    }

  return measure.Arm(work, {})


def like(built):
  """The shapes, dtypes and shardings to restore to."""
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
    built.state_shapes,
    built.state_shardings,
  )


def size_mib(directory: pathlib.Path) -> float:
  files = [p for p in directory.rglob("*") if p.is_file()]
  return sum(p.stat().st_size for p in files) / measure.MIB


def figures(repeats: measure.Repeats) -> dict:
  turns = [turn for one in repeats for turn in one["save"].turns]
  keys = [*SECONDS, "stall_in_steps", "cost", "cost_cpu", "checkpoint_mib"]
  found = {}
  for key in keys:
    found |= measure.ranged(key, [turn[key] for turn in turns])
  found["equal"] = all(turn["equal"] for turn in turns)
  return found | measure.fact(repeats, "save", "peak_rss_mib")


if __name__ == "__main__":
  main()
