# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher whose layers lie in the hosts' memory says the same."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import (
  config,
  data,
  methods,
  optim,
  placement,
  run,
  sampling,
  sharding,
  step,
  types,
)
from jdistill.models import DecoderConfig, MLPConfig, Segment, host

B, T, V = 4, 16, 48
MESH = sharding.MeshShape(1, 2, 2, 2)


def decoder(width: int, layers: int) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=V,
    width=width,
    mlp_width=2 * width,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    segments=(Segment.uniform(layers), Segment.uniform(1)),
  )


TEACHER = decoder(16, 3)
QUICK = {"xla_backend_optimization_level": 0}


def batch() -> types.Batch:
  rng = np.random.default_rng(0)
  tokens, targets = rng.integers(V, size=(2, B, T)).astype(np.int32)
  at = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)).copy()
  ones = np.ones((B, T), np.int32)
  view = types.Tokens(tokens, targets, ones.astype(np.float32), at, ones)
  return types.Batch({"student": view}, {}, np.arange(B, dtype=np.int32))


def build(place: str, weights: str, **changes) -> run.Run:
  fields = {
    "student": config.Cut((0, 3)),
    "teachers": {
      "teacher": config.Teacher(
        architecture=TEACHER, place=place, weights=weights
      )
    },
    "method": methods.WeightedKD(),
    "data": data.TextData(seq_len=T, batch_size=B),
    "optimizer": optim.AdamW(lr=1e-2),
    "mesh": MESH,
    "microbatches": 2,
    "steps": 3,
  }
  settings = config.Config(**(fields | changes))
  return run.build(settings, run.find_models(settings), batch())


def kinds(tree) -> set[str]:
  return {x.sharding.memory_kind for x in jax.tree.leaves(tree)}


def found(place: str, weights: str):
  built = build(place, weights)
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    params = dict(teachers["teacher"])
    layers = {k: params.pop(k) for k in TEACHER.stacks}
    far = [x for x in jax.tree.leaves(layers) if x.ndim > 2]
    assert kinds(far) == {"pinned_host" if place == "host" else "device"}
    near = [x for x in jax.tree.leaves(layers) if x.ndim == 2]
    assert kinds((near, params)) == {"device"}
    state = built.init_state(teachers)
    placed = sharding.place_rows(batch(), built.mesh)
    figures = []
    for _ in range(3):
      state, metrics = built.train_step(state, teachers, placed)
      figures.append(metrics)
    figures.append(built.eval_step(state.params["student"], teachers, placed))
    judge = built.models.teachers["teacher"].architecture
    texts = sampling.generate(
      judge,
      teachers["teacher"],
      [np.arange(5, dtype=np.int32)],
      max_new_tokens=4,
      temperature=0.0,
      key=jax.random.key(0),
      eos_id=(),
    )
  assert kinds(state) == {"device"}
  return jax.device_get(figures), texts


def gradient(place: str):
  """Gradient, loss and held-out figures at weights that nobody draws."""
  student = config.Fresh(decoder(8, 1))
  built = build(place, "float32", student=student, method=methods.KD())
  student, method = built.models.student, built.method
  teachers = {"teacher": built.models.teachers["teacher"].architecture}
  find = step.make_gradient(student, teachers, method, microbatches=2)
  judge = step.make_eval_step(student, teachers["teacher"])

  def both(params, frozen, batch):
    out = find(params, frozen, batch, jnp.int32(0))
    return out, judge(params["student"], frozen["teacher"], batch)

  rng = np.random.default_rng(0)
  drawn = jax.tree.map(
    lambda s, p: jax.device_put(rng.normal(size=s.shape).astype(s.dtype), p),
    (built.state_shapes.params, built.teacher_shapes()),
    (built.state_shardings.params, built.teacher_shardings),
  )
  with jax.set_mesh(built.mesh):
    placed = sharding.place_rows(batch(), built.mesh)
    made = jax.jit(both).lower(*drawn, placed).compile(QUICK)
    return jax.device_get(made(*drawn, placed))


@pytest.mark.slow
def test_the_same_gradient_from_either_memory():
  chex.assert_trees_all_equal(gradient("host"), gradient("device"))


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["int8", "float32"])
def test_the_same_run_from_either_memory(weights):
  chex.assert_trees_all_equal(found("host", weights), found("device", weights))


@pytest.mark.slow
def test_one_layer_at_a_time_is_on_the_device():
  """What the program holds there does not grow with the teacher's layers."""

  def temporary(layers: int) -> int:
    shape = decoder(64, layers)
    teacher = config.Teacher(architecture=shape, place="host")
    built = build(
      "host",
      "float32",
      teachers={"teacher": teacher},
      student=config.Fresh(decoder(16, 1)),
    )
    with jax.set_mesh(built.mesh):
      lowered = built.train_step.lower(
        built.state_shapes, built.teacher_shapes(), batch()
      )
    return lowered.compile(QUICK).memory_analysis().temp_size_in_bytes

  layer = sum(
    4 * x.size for x in jax.tree.leaves(decoder(64, 1).shapes()["segment_0"])
  )
  assert temporary(40) - temporary(8) < 4 * layer


def test_what_lies_with_the_host_is_counted_apart():
  settings = build("host", "float32").config
  said = placement.layout(settings, devices=8)
  layers = {k: v for k, v in TEACHER.shapes().items() if k in TEACHER.stacks}
  total = said["totals"]["teacher"]
  kernels = [x for x in jax.tree.leaves(layers) if x.ndim > 2]
  whole = sum(4 * x.size for x in kernels)
  assert total["host_bytes"] >= whole / 8
  rest = total["bytes"] - whole
  assert rest / 8 <= total["bytes_per_device"] <= rest
  memories = {row["name"]: row["memory"] for row in said["parameters"]
              if row["model"] == "teacher"}  # fmt: skip
  assert {name for name, memory in memories.items() if memory == "host"} == {
    name for name in memories if name.endswith("kernel")
  }


def test_it_is_for_decoders():
  shape = MLPConfig(classes=4, shape=(8,), widths=(8,))
  settings = config.Config(
    student=config.Fresh(shape),
    teachers={"teacher": config.Teacher(architecture=shape, place="host")},
    method=methods.KD(),
    data=data.ArrayData("npz:none.npz", batch_size=8),
    steps=1,
  )
  view = types.Examples(np.zeros((8, 8)), np.zeros(8), np.zeros(8))
  rows = types.Batch({"student": view}, {}, np.arange(8))
  with pytest.raises(types.UserError, match=r"place is 'host'.*a MLPConfig"):
    run.build(settings, run.find_models(settings), rows)


def test_devices_tell_what_memory_they_reach():
  assert host.MEMORY in sharding.memory_kinds(sharding.make_mesh(MESH))
