# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A head's loss, value and gradients, against its matmuls alone.

  python tests/bench/loss.py --vocab 131072 --tokens 2048 --hidden 512 \
    --divergence forward_kl --dense

The arm `loss` takes value and gradients (of hidden states and head) of a sum of
divergences between a student and a frozen teacher, scaled by a traced value as
loss weights and accumulation do. The arm `matmuls` is the four matmuls of it in
the same chunks, six with `--mode recompute` (`head_matmuls.py`). `--dense` adds
the arm `dense`, the same loss on whole arrays of logits.

Figures of `loss` and `dense`:
  xla_temp_mib: temporaries of the compiled program, by its memory analysis.
  temp_in_logits_arrays: those, less the bytes of the head's gradient, in
    float32 arrays [tokens, vocab]. Below 0 where the gradient is summed right
    in the program's output.
  head_grad_arrays: how many buffers of the head's size there are, temporaries
    and outputs together: what the memory grows by when `hidden` doubles, in
    float32 arrays [vocab, hidden]. The hidden states' own gradients grow too,
    by tokens / vocab of an array each.
  cpu_s, wall_s: of one evaluation. peak_rss_mib: of the process.
  ratio_to_matmuls: in CPU seconds.
`error`, of `loss` against the dense spelling on a few chunks: the largest
relative error of the value and of the gradients' norms.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import measure
import numpy as np
from head_matmuls import four, six

from jdistill import losses, types
from jdistill.losses import budget as budget_lib

OF_TWO = (
  "forward_kl",
  "reverse_kl",
  "jeffreys",
  "jsd",
  "skew_forward_kl",
  "skew_reverse_kl",
  "total_variation",
  "adaptive_kl",
)
OF_TARGETS = ("hinton", "dkd")
CHECKED_CHUNKS = 4


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--vocab", type=int, default=131_072)
  parser.add_argument("--tokens", type=int, default=2048)
  parser.add_argument("--hidden", type=int, default=512)
  parser.add_argument(
    "--divergence",
    choices=[*OF_TWO, "alpha_beta", *OF_TARGETS],
    default="forward_kl",
  )
  parser.add_argument(
    "--mode", choices=["one_pass", "recompute"], default="one_pass"
  )
  parser.add_argument("--dense", action="store_true")
  parser.add_argument("--chunk-bytes", type=int, help="of one chunk's logits")
  parser.add_argument("--evaluations", type=int, default=5)
  measure.add_arguments(parser, repeats=3)
  args = parser.parse_args()
  names = ["loss", *(["dense"] if args.dense else []), "matmuls"]
  arms = {name: functools.partial(make_arm, args, name) for name in names}
  # A process of its own, whose memory is nobody's figure.
  arms["check"] = lambda: measure.Arm(lambda: None, {"error": error(args)})
  repeats = measure.run(args, arms, rounds=args.evaluations)
  found = {
    **measure.fact(repeats, "check", "error"),
    "arms": {name: figures(repeats, name) for name in names},
  }
  measure.report("loss", args, repeats, found)


def make_arm(args: argparse.Namespace, name: str) -> measure.Arm:
  program = jax.jit(make_program(args, name))
  inputs = draw(args, args.tokens, args.hidden)
  compiled, compile_s, _ = measure.timed(program.lower(*inputs).compile)
  facts = {"compile_s": compile_s}
  if name != "matmuls":
    facts |= memory(args, program, compiled)

  def work():
    jax.block_until_ready(compiled(*inputs))

  return measure.Arm(work, facts)


def make_program(args: argparse.Namespace, name: str):
  """`program(student, teacher, targets, scale)` of an arm."""
  if name == "matmuls":
    alone = four if args.mode == "one_pass" else six
    return lambda student, teacher, targets, scale: alone(
      student, teacher, budget(args)
    )
  total = {"dense": dense, "one_pass": one_pass, "recompute": recompute}[
    name if name == "dense" else args.mode
  ]
  return jax.value_and_grad(functools.partial(total, args))


def budget(args: argparse.Namespace) -> int:
  return args.chunk_bytes or budget_lib.chunk_bytes()


def one_pass(args, student, teacher, targets, scale):
  def fn(logits, data, params):
    del params
    return divergence(args, logits["student"], logits["teacher"], data), ()

  total, _ = losses.walk(
    fn,
    {"student": student, "teacher": teacher},
    targets,
    frozen=("teacher",),
    chunk_bytes=budget(args),
  )
  return scale * total


def recompute(args, student, teacher, targets, scale):
  def fn(logits, data, params):
    del params
    return divergence(args, logits["student"], logits["teacher"], data)

  values = losses.walk_tokens(
    fn,
    {"student": student, "teacher": teacher},
    targets,
    frozen=("teacher",),
    chunk_bytes=budget(args),
  )
  return scale * values.sum()


def dense(args, student, teacher, targets, scale):
  logits = student.head(student.hidden), teacher.head(teacher.hidden)
  return scale * divergence(args, *logits, targets).sum()


def divergence(args, student, teacher, targets) -> jax.Array:
  """[C] nats, the divergence's scalars left at their defaults."""
  fn = getattr(losses, args.divergence)
  if args.divergence == "alpha_beta":
    return fn(student, teacher, alpha=0.2, beta=0.7)
  if args.divergence in OF_TARGETS:
    return fn(student, teacher, targets)
  return fn(student, teacher)


def draw(args: argparse.Namespace, tokens: int, hidden: int):
  """Hidden states and heads whose logits have a deviation of 2."""
  draw = np.random.default_rng(0)

  def normal(rows: int, deviation: float) -> jax.Array:
    values = draw.standard_normal((rows, hidden), np.float32)
    values *= deviation
    return jnp.asarray(values)

  student, teacher = (
    types.Dense(
      normal(tokens, 1.0), types.Head(normal(args.vocab, 2 * hidden**-0.5))
    )
    for _ in range(2)
  )
  targets = jnp.asarray(draw.integers(args.vocab, size=tokens), jnp.int32)
  return student, teacher, targets, jnp.float32(1 / tokens)


def memory(args: argparse.Namespace, program, compiled) -> dict[str, float]:
  """Temporaries of the program, and how both they and outputs grow."""
  wide = jax.eval_shape(lambda: draw_shapes(args, 2 * args.hidden))
  wider = program.lower(*wide).compile().memory_analysis()
  stats = compiled.memory_analysis()
  head = 4 * args.vocab * args.hidden
  temp = stats.temp_size_in_bytes
  grown = (wider.temp_size_in_bytes + wider.output_size_in_bytes) - (
    temp + stats.output_size_in_bytes
  )
  return {
    "xla_temp_mib": temp / measure.MIB,
    "xla_output_mib": stats.output_size_in_bytes / measure.MIB,
    "temp_in_logits_arrays": (temp - head) / (4 * args.tokens * args.vocab),
    "head_grad_arrays": grown / head,
  }


def draw_shapes(args: argparse.Namespace, hidden: int):
  """What `draw` gives, as zeros of which only the shapes are wanted."""
  student, teacher = (
    types.Dense(
      jnp.zeros((args.tokens, hidden)),
      types.Head(jnp.zeros((args.vocab, hidden))),
    )
    for _ in range(2)
  )
  return student, teacher, jnp.zeros(args.tokens, jnp.int32), jnp.float32(1)


def error(args: argparse.Namespace) -> float:
  """Of the chunked loss against the dense one, relative, the largest."""
  size = max(1, budget(args) // (4 * args.vocab))
  inputs = draw(args, min(args.tokens, CHECKED_CHUNKS * size), args.hidden)
  found = jax.jit(make_program(args, "loss"))(*inputs)
  expected = jax.jit(make_program(args, "dense"))(*inputs)
  errors = jax.tree.map(
    lambda a, b: jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()),
    found,
    expected,
  )
  return float(max(jax.tree.leaves(errors)))


def figures(repeats: measure.Repeats, name: str) -> dict:
  found = measure.speed(repeats, name)
  found |= measure.fact(repeats, name, "compile_s")
  if name == "matmuls":
    return found
  for key in ("temp_in_logits_arrays", "head_grad_arrays", "xla_temp_mib",
              "xla_output_mib"):  # fmt: skip
    found[key] = measure.fact(repeats, name, key)[key]
  ratios = measure.ratio(repeats, name, "matmuls")
  return found | measure.ranged("ratio_to_matmuls", ratios)


if __name__ == "__main__":
  main()
