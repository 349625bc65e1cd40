# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Compile time against depth, and what a second start compiles.

  python tests/bench/compile.py --depths 4 30

One arm for each depth, of teacher and student alike, traces, lowers and
compiles the product's train step with no cache. The arms `first_start` and
`second_start` then start a run of the first depth (state, one train step, one
evaluation step) with JAX's persistent cache in one directory that was empty.

Figures: of each depth `trace_s`, `compile_s` and `compile_cpu_s` (trace, lower
and compile together), `ratio` of the deepest to the shallowest in CPU seconds;
of each start `programs` asked for, `compiled` of them (the others came from the
cache) and `compile_cpu_s`, the CPU seconds of all of it, running included.
"""

import argparse
import collections
import functools
import os
import tempfile

import jax
import measure
import pair

STARTS = ("first_start", "second_start")
CACHE = "JAX_COMPILATION_CACHE_DIR"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  pair.add_arguments(parser)
  parser.add_argument("--depths", type=int, nargs="+", default=[4, 30])
  measure.add_arguments(parser, repeats=3)
  args = parser.parse_args()
  arms = {
    f"depth_{n}": functools.partial(make_depth, args, n) for n in args.depths
  }
  arms |= dict.fromkeys(STARTS, functools.partial(make_start, args))
  repeats = []
  for _ in range(args.repeats):
    with tempfile.TemporaryDirectory() as directory:
      os.environ.setdefault(CACHE, directory)
      one = argparse.Namespace(**{**vars(args), "repeats": 1})
      repeats += measure.run(one, arms, rounds=1, warmup=0)
      del os.environ[CACHE]
  args.load = one.load
  measure.report("compile", args, repeats, figures(args, repeats))


def make_depth(args: argparse.Namespace, depth: int) -> measure.Arm:
  jax.config.update("jax_enable_compilation_cache", False)
  built, inputs = prepare(args, depth)
  with jax.set_mesh(built.mesh):
    traced, trace_s, trace_cpu_s = measure.timed(
      lambda: built.train_step.trace(*inputs)
    )
    _, compile_s, compile_cpu_s = measure.timed(
      lambda: traced.lower().compile()
    )
  facts = {
    "trace_s": trace_s,
    "compile_s": trace_s + compile_s,
    "compile_cpu_s": trace_cpu_s + compile_cpu_s,
  }
  return measure.Arm(lambda: None, facts)


def prepare(args: argparse.Namespace, depth: int):
  """A run with both models so deep, and the shapes its step reads."""
  deep = {**vars(args), "t_layers": depth, "s_layers": depth}
  args = argparse.Namespace(**deep)
  built = pair.build(args, pair.METHODS["forward_kl"])
  teachers = {
    name: found.architecture.shapes()
    for name, found in built.models.teachers.items()
  }
  batch = jax.eval_shape(lambda: pair.tokens(args))
  return built, (built.state_shapes, teachers, batch)


def make_start(args: argparse.Namespace) -> measure.Arm:
  # By default nothing is kept that compiles within a second.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  events = collections.Counter()
  jax.monitoring.register_event_listener(
    lambda event, **_: events.update([event.rsplit("/", 1)[-1]])
  )
  built, _ = prepare(args, args.depths[0])
  batch = jax.device_put(pair.tokens(args))

  def start():
    with jax.set_mesh(built.mesh):
      teacher_params = built.load_teachers()
      state = built.init_state(teacher_params)
      state, _ = built.train_step(state, teacher_params, batch)
      judged = built.eval_step(state.params["student"], teacher_params, batch)
      jax.block_until_ready(judged)

  _, _, cpu_s = measure.timed(start)
  asked = events["compile_requests_use_cache"]
  facts = {
    "programs": asked,
    "compiled": asked - events["cache_hits"],
    "compile_cpu_s": cpu_s,
  }
  return measure.Arm(lambda: None, facts)


def figures(args: argparse.Namespace, repeats: measure.Repeats) -> dict:
  arms = {}
  for name in repeats[0]:
    keys = ["trace_s", "compile_s", "compile_cpu_s", "peak_rss_mib"]
    if name in STARTS:
      keys = ["programs", "compiled", "compile_cpu_s"]
    elif name == "gemm":
      continue
    arms[name] = {}
    for key in keys:
      arms[name] |= measure.fact(repeats, name, key)
  low, high = (f"depth_{of(args.depths)}" for of in (min, max))
  ratios = [
    one[high].facts["compile_cpu_s"] / one[low].facts["compile_cpu_s"]
    for one in repeats
  ]
  return {"arms": arms, **measure.ranged("ratio", ratios)}


if __name__ == "__main__":
  main()
