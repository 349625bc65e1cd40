# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The train step against its floor.

  python tests/bench/step.py --method forward_kl reverse_kl jsd \
    --t-layers 8 --t-dim 512 --t-ffn 1536 --s-layers 4 --s-dim 256 \
    --s-ffn 768 --heads 8 --kv-heads 4 --vocab 32768 --batch 8 --seq 256 \
    --steps 15

An arm is the product's own step, as `jdistill.run.build` makes it, with one
method. The arm `floor` is what no step can do without, with the same models,
optimizer, shardings and donation: teacher trunk forward, student trunk forward
and backward, optimizer, and the four head matmuls in the same chunks with no
element-wise loss work (`head_matmuls.py` says how they stay alive).

Figures of each arm: `cpu_s_per_step` and `wall_s_median` (a step, the result
waited for), `tokens_per_s` of wall time, `compile_s` and `compile_cpu_s`
(trace, lower and compile), `peak_rss_mib` of the process, `xla_temp_mib` of
the compiled step, `ratio_to_floor` in CPU seconds, `peak_ratio_to_floor`.
"""

import argparse
import functools

import jax
import measure
import optax
import pair
from head_matmuls import four

from jdistill import run, types
from jdistill.losses import budget as budget_lib


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  pair.add_arguments(parser)
  parser.add_argument("--steps", type=int, default=15)
  parser.add_argument(
    "--method", nargs="+", choices=list(pair.METHODS), default=["forward_kl"]
  )
  measure.add_arguments(parser, repeats=3)
  args = parser.parse_args()
  arms = {
    name: functools.partial(make_arm, args, name)
    for name in ["floor", *args.method]
  }
  repeats = measure.run(args, arms, rounds=args.steps)
  found = {name: figures(args, repeats, name) for name in arms}
  measure.report("step", args, repeats, {"arms": found})


def make_arm(args: argparse.Namespace, name: str) -> measure.Arm:
  method = pair.METHODS[args.method[0] if name == "floor" else name]
  built = pair.build(args, method)
  train_step = floor_step(built) if name == "floor" else built.train_step
  return pair.step_arm(args, built, train_step)


def floor_step(built: run.Run):
  """The step without a loss, jitted like the product's."""
  teacher = built.models.teachers["teacher"].architecture
  student = built.models.student

  def trunk(params, batch):
    outputs = student.bind(params)(batch["student"])
    return outputs.hidden, outputs.head.weight

  def flat(hidden, head):
    return types.Dense(hidden.reshape(-1, hidden.shape[-1]), head)

  def step(state, teacher_params, batch):
    heard = teacher.bind(teacher_params["teacher"])(batch["student"])
    (hidden, weight), pull = jax.vjp(
      lambda params: trunk(params, batch), state.params["student"]
    )
    d_hidden, d_head = four(
      flat(hidden, types.Head(weight)),
      flat(heard.hidden, heard.head),
      budget_lib.chunk_bytes(),
    )
    (grads,) = pull((d_hidden.reshape(hidden.shape), d_head))
    updates, opt_state = built.optimizer.update(
      {**state.params, "student": grads}, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    return types.TrainState(state.step + 1, params, opt_state, state.extra), ()

  shardings = built.state_shardings
  rows = jax.sharding.NamedSharding(
    built.mesh, jax.sharding.PartitionSpec(types.BATCH_AXES)
  )
  return jax.jit(
    step,
    in_shardings=(shardings, built.teacher_shardings, rows),
    out_shardings=(shardings, None),
    donate_argnums=0,
  )


def figures(args, repeats: measure.Repeats, name: str) -> dict:
  found = measure.speed(repeats, name)
  tokens = args.batch * args.seq
  renamed = {"cpu_s": "cpu_s_per_step", "wall_s": "wall_s_median"}
  for old, new in renamed.items():
    for end in ("", "_range"):
      found[new + end] = found.pop(old + end)
  speeds = [tokens / one[name].median("wall_s") for one in repeats]
  peaks = [
    one[name].facts["peak_rss_mib"] / one["floor"].facts["peak_rss_mib"]
    for one in repeats
  ]
  return {
    **found,
    **measure.ranged("tokens_per_s", speeds),
    **measure.fact(repeats, name, "compile_s"),
    **measure.fact(repeats, name, "compile_cpu_s"),
    **measure.fact(repeats, name, "xla_temp_mib"),
    **measure.ranged("ratio_to_floor", measure.ratio(repeats, name, "floor")),
    **measure.ranged("peak_ratio_to_floor", peaks),
  }


if __name__ == "__main__":
  main()
