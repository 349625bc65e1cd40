# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows divided over devices by position: the same losses and gradients."""

import functools
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdistill import config, data, hlo, methods, run, sharding, step, types
from jdistill.models import DecoderConfig, Rope, Segment

B, T, V, HEAD_DIM = 4, 40, 48, 8


def decoder(width: int, **fields) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=V,
    width=width,
    mlp_width=2 * width,
    num_heads=4,
    head_dim=HEAD_DIM,
    **fields,
  )


FAMILIES = {
  "llama": {"num_kv_heads": 2, "segments": (Segment.uniform(2),)},
  "qwen": {
    "num_kv_heads": 4,
    "segments": (Segment.uniform(2),),
    "qkv_bias": True,
    "qk_norm": True,
    "tied": False,
  },
  "gemma": {
    "num_kv_heads": 1,
    "segments": (Segment((5, 0, 11), (0, 1, 0)),),
    "ropes": (Rope(1000.0), Rope(50.0, "linear", 4.0)),
    "activation": "gelu_tanh",
    "norm_plus_one": True,
    "post_norms": True,
    "embed_scale": 4.0,
    "attention_soft_cap": 5.0,
    "final_soft_cap": 9.0,
  },
}
"""What sets the families apart, windows shorter than a part included."""

METHODS = {
  "kd": methods.Sum(
    {
      "kd": methods.Part(methods.KD()),
      "ce": methods.Part(methods.CrossEntropy(), 0.3),
    }
  ),
  "weighted": methods.WeightedKD(weight="kl"),
  "features": methods.Features(
    (
      ("layers/1/in", "embed"),
      ("layers/0/attn", "layers/1/mlp"),
      ("pooled", "pooled"),
    )
  ),
  "pooled": methods.InfoNCE(width=None),
}


def batch() -> types.Batch:
  """Documents across the bounds of parts, rows that end in padding, and one
  that is nothing else."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(V, size=(B, T)).astype(np.int32)
  ids, positions = np.zeros((2, B, T), np.int32)
  for row, cuts in enumerate(([40], [3, 21, 37], [9, 14], [])):
    for number, (a, b) in enumerate(zip([0, *cuts], cuts, strict=False)):
      ids[row, a:b] = number + 1
      positions[row, a:b] = np.arange(b - a)
  mask = (ids > 0) & (positions % 5 != 3)
  view = types.Tokens(
    tokens, np.roll(tokens, -1, 1), mask.astype(np.float32), positions, ids
  )
  return types.Batch({"student": view}, {}, np.arange(B, dtype=np.int32))


def build(family: str, method: str, mesh, microbatches: int = 1) -> run.Run:
  fields = FAMILIES[family]
  student = decoder(16, **fields)
  teacher = decoder(16 if method == "pooled" else 24, **fields)
  settings = config.Config(
    student=config.Fresh(student),
    teachers={
      "teacher": config.Teacher(
        architecture=teacher, rules={"mlp": "fsdp", "vocab": None}
      )
    },
    method=METHODS[method],
    data=data.TextData(seq_len=T, batch_size=B),
    steps=1,
    mesh=mesh,
    microbatches=microbatches,
  )
  devices = None if mesh.context > 1 else jax.devices()[:1]
  models = run.find_models(settings)
  return run.build(settings, models, batch(), devices=devices)


def drawn(shapes, seed: int, places):
  """Parameters that make models say something, without compiling a draw."""
  rng = np.random.default_rng(seed)

  def one(shape):
    fan = shape.shape[-2] if len(shape.shape) > 2 else 4
    return rng.normal(0.1, 1.5 * fan**-0.5, shape.shape).astype(np.float32)

  return jax.device_put(jax.tree.map(one, shapes), places)


def jit(fn):
  return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def figures(family: str, method: str, mesh, microbatches: int = 1):
  """Gradient, loss with metrics, and held-out figures."""
  built = build(family, method, mesh, microbatches)
  student = built.models.student
  teachers = {k: f.architecture for k, f in built.models.teachers.items()}
  gradient = step.make_gradient(
    student, teachers, built.method, microbatches=microbatches
  )
  judge = step.make_eval_step(student, teachers["teacher"])
  params = drawn(built.state_shapes.params, 1, built.state_shardings.params)
  shapes = {k: a.shapes() for k, a in teachers.items()}
  frozen = drawn(shapes, 2, built.teacher_shardings)

  def both(params, frozen, batch):
    found = gradient(params, frozen, batch, jnp.int32(0))
    return *found, judge(params["student"], frozen["teacher"], batch)

  with jax.set_mesh(built.mesh):
    placed = sharding.place_rows(batch(), built.mesh)
    return jax.device_get(jit(both)(params, frozen, placed))


def same(found, expected):
  gap = jax.tree.map(np.subtract, found[0], expected[0])
  norm = float(optax.global_norm(expected[0]))
  assert norm > 1e-4
  assert float(optax.global_norm(gap)) <= 1e-5 * norm
  for a, b in zip(
    jax.tree.leaves(found[1:]), jax.tree.leaves(expected[1:]), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


ALONE = sharding.MeshShape(1, 1, 1, 1)
CASES = [
  ("llama", "kd", (1, 2, 2, 2), 2),
  ("gemma", "weighted", (1, 2, 1, 4), 1),
  ("llama", "kd", (1, 1, 1, 8), 1),
  ("gemma", "kd", (2, 1, 1, 4), 2),
  ("qwen", "features", (1, 1, 4, 2), 1),
  ("qwen", "kd", (2, 2, 1, 2), 1),
  ("llama", "pooled", (1, 1, 2, 4), 1),
  ("gemma", "kd", (1, 1, 4, 2), 1),
]


@pytest.mark.parametrize(
  ("family", "method", "sizes", "microbatches"),
  [*CASES[:1], *(pytest.param(*c, marks=pytest.mark.slow) for c in CASES[1:])],
)
def test_divided_positions_change_nothing(family, method, sizes, microbatches):
  """Nor does a teacher that is divided by rules of its own."""
  mesh = sharding.MeshShape(*sizes)
  same(figures(family, method, mesh, microbatches),
       figures(family, method, ALONE))  # fmt: skip


def test_keys_and_values_alone_are_gathered():
  """No device sees the hidden states of a whole row, or their gradient."""
  built = build("llama", "kd", sharding.MeshShape(1, 1, 4, 2))
  with jax.set_mesh(built.mesh):
    lowered = built.train_step.lower(
      built.state_shapes, built.teacher_shapes(), batch()
    )
  options = {"xla_backend_optimization_level": 0}
  program = hlo.parse(lowered.compile(options).as_text())
  sent = [array for _, array, _ in hlo.collectives(program.buffers())]
  whole = B * T  # tokens that would lie on each device
  keys = [a for a in sent if {T, HEAD_DIM} <= set(a.shape)]
  assert any(array.size >= whole * HEAD_DIM for array in keys)
  widths = {16, 24, 2 * 16, 2 * 24}  # of hidden states and of the MLPs
  for array in sent:
    for width in widths & set(array.shape):
      assert array.size // width < whole, array


PROCESS = """
import sys
import jax
import numpy as np
jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from jdistill import sharding, types

rows = np.arange(8 * 16).reshape(8, 16)
for sizes, count in (((1, 1, 1, 8), 1), ((2, 1, 1, 4), 2), ((1, 2, 2, 2), 2)):
  mesh = sharding.make_mesh(sharding.MeshShape(*sizes))
  share = sharding.row_share(mesh)
  assert share["process_count"] == count, share
  own = np.split(rows, count)[share["process_index"]]
  view = types.Tokens(own, own, own, own, own)
  batch = types.Batch({"student": view}, {}, own[:, 0])
  placed = sharding.place_rows(batch, mesh)
  tokens = placed["student"].tokens
  assert tokens.shape == rows.shape, tokens.shape
  for shard in tokens.addressable_shards:
    np.testing.assert_array_equal(shard.data, rows[shard.index])
    assert shard.data.shape[1] == 16 // sizes[3]
  for shard in placed.example_id.addressable_shards:
    np.testing.assert_array_equal(shard.data, rows[:, 0][shard.index])
"""


@pytest.mark.slow
def test_positions_may_be_divided_over_processes():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", PROCESS, address, str(n)],
      stderr=subprocess.PIPE,
      env=env,
    )
    for n in range(2)
  ]
  for process in processes:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
