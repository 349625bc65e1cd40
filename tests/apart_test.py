# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teachers on devices of their own teach the same."""

import dataclasses
import io

import chex
import jax
import numpy as np
import pytest
from flax import linen as nn
from rich.console import Console

from jdistill import (
  apart,
  config,
  config_json,
  data,
  methods,
  optim,
  placement,
  run,
  sharding,
  types,
)
from jdistill.methods import base
from jdistill.models import (
  DecoderConfig,
  FeatureDraft,
  LinenArchitecture,
  MLPConfig,
  Segment,
)

B, T, V = 8, 16, 48
Mesh = sharding.MeshShape
slow = pytest.mark.slow


def decoder(width: int, layers: int, **fields) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=V,
    width=width,
    mlp_width=2 * width,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    segments=(Segment.uniform(layers),),
    **fields,
  )


TEACHER = decoder(24, 3, tied=False, final_soft_cap=9.0)
STUDENT = decoder(16, 2)
DRAFT = FeatureDraft(
  vocab_size=V,
  width=TEACHER.width,
  mlp_width=32,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  sampling=2,
  unaligned=8,
  noise=0.01,
)


class Pair(base.TokenMethod):
  """Towards the mean of two teachers."""

  def needs(self) -> base.Needs:
    return base.Needs(teachers=("one", "two"))

  def terms(self, logits, data, params, step):
    del data, params, step
    mean = (logits["one"] + logits["two"]) / 2
    value = ((logits["student"] - mean) ** 2).mean(-1)
    return {"distance": base.Term(value)}


ALL = methods.Sum(
  {
    "kd": methods.Part(methods.KD()),
    "features": methods.Part(
      methods.Features((("layers/1/out", "layers/2/in"), ("pooled", "pooled")))
    ),
    "ce": methods.Part(methods.CrossEntropy(), 0.3),
  }
)


class Own(nn.Module):
  """Somebody's classifier, whose head nobody knows."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(5)(nn.tanh(nn.Dense(12)(x)))


def texts() -> types.Batch:
  rng = np.random.default_rng(0)
  tokens, targets = rng.integers(V, size=(2, B, T)).astype(np.int32)
  at = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T)).copy()
  real = at < rng.integers(3, T + 1, size=(B, 1))
  view = types.Tokens(
    tokens, targets, real.astype(np.float32), at, real.astype(np.int32)
  )
  return types.Batch({"student": view}, {}, np.arange(B, dtype=np.int32))


def examples() -> types.Batch:
  rng = np.random.default_rng(0)
  view = types.Examples(
    rng.normal(size=(B, 6)).astype(np.float32),
    rng.integers(5, size=B).astype(np.int32),
    np.ones(B, np.float32),
  )
  return types.Batch({"student": view}, {}, np.arange(B, dtype=np.int32))


def settings(teachers, **changes) -> config.Config:
  fields = {
    "student": config.Fresh(STUDENT),
    "method": ALL,
    "data": data.TextData(seq_len=T, batch_size=B),
    "optimizer": optim.AdamW(lr=1e-2),
    "steps": 3,
  }
  return config.Config(teachers=teachers, **(fields | changes))


def build(made: config.Config, rows: types.Batch) -> run.Run:
  return run.build(made, run.find_models(made), rows)


def figures(made: config.Config, rows: types.Batch):
  """Metrics of some steps, an evaluation and a text of the first teacher."""
  built = build(made, rows)
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    state = built.init_state(teachers)
    placed = sharding.place_rows(rows, built.mesh)
    found = []
    for _ in range(3):
      state, metrics = built.train_step(state, teachers, placed)
      found.append(metrics)
    found.append(built.eval_step(state.params["student"], teachers, placed))
  return jax.device_get(found)


def assert_same(found, expected):
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


KD = {"teacher": config.Teacher(architecture=TEACHER)}
CLASSES = {
  "student": config.Fresh(MLPConfig(classes=5, shape=(6,), widths=(8,))),
  "method": methods.KD(),
  "data": data.ArrayData("npz:none.npz", batch_size=B),
}
OWN = LinenArchitecture(Own(), kind="inputs", shape=(6,))
CASES = {
  "decoder": (KD, {}, {"teacher": Mesh(1, 4)}, Mesh()),
  "parts": (
    KD,
    {"microbatches": 2},
    {"teacher": Mesh(2, 1, 2)},
    Mesh(1, 1, 2, 2),
  ),
  "context": (KD, {}, {"teacher": Mesh(1, 1, 1, 4)}, Mesh(2, 1, 2)),
  "two": (
    {
      "one": config.Teacher(architecture=TEACHER),
      "two": config.Teacher(architecture=decoder(16, 1), weights="int8"),
    },
    {"method": Pair()},
    {"one": Mesh(1, 2), "two": Mesh(2, 2)},
    Mesh(),
  ),
  "one of two": (
    {
      "one": config.Teacher(architecture=TEACHER, dtype="bfloat16"),
      "two": config.Teacher(architecture=decoder(16, 1)),
    },
    {"method": Pair(), "student": config.Cut(2), "microbatches": 2},
    {"two": Mesh(1, 4)},
    Mesh(2, 2),
  ),
  "draft": (
    KD,
    {
      "method": methods.EAGLE(),
      "student": config.Fresh(DRAFT),
      "microbatches": 2,
    },
    {"teacher": Mesh(1, 4)},
    Mesh(1, 2, 2),
  ),
  "classifier": (
    {
      "teacher": config.Teacher(
        architecture=MLPConfig(classes=5, shape=(6,), widths=(12,))
      )
    },
    CLASSES,
    {"teacher": Mesh(1, 4)},
    Mesh(1, 2, 2),
  ),
  "own": (
    {"teacher": config.Teacher(architecture=OWN)},
    CLASSES,
    {"teacher": Mesh(4)},
    Mesh(),
  ),
}
"""Teachers, changes of the config, the teachers' meshes and the student's."""


@pytest.mark.parametrize(
  "name",
  [name if name == "own" else pytest.param(name, marks=slow) for name in CASES],
)
def test_the_same_figures_as_on_one_mesh(name):
  teachers, changes, own, mesh = CASES[name]
  rows = examples() if changes.get("data") else texts()
  moved = {
    k: dataclasses.replace(t, mesh=own.get(k)) for k, t in teachers.items()
  }
  made = settings(moved, mesh=mesh, **changes)
  assert_same(
    figures(made, rows),
    figures(settings(teachers, mesh=Mesh(1), **changes), rows),
  )


def at(shape: sharding.MeshShape, devices) -> jax.sharding.NamedSharding:
  return sharding.by_token(sharding.make_mesh(shape, devices))


@pytest.mark.parametrize(
  ("begin", "end"),
  [
    (Mesh(4), Mesh(1, 4)),
    (Mesh(2, 1, 2), Mesh(4)),
    (Mesh(4), Mesh(1, 1, 4)),
    (Mesh(1, 1, 1, 4), Mesh(2, 1, 1, 2)),
  ],
  ids=["alike", "finer", "whole", "both axes"],
)
def test_arrays_move_whole(begin, end):
  """Parts that differ are cut and put together on the way."""
  devices = jax.devices()
  rows = np.arange(B * T * 3).reshape(B, T, 3)
  here, there = at(begin, devices[:4]), at(end, devices[4:])
  tree = {"x": jax.device_put(rows, here)}
  with jax.set_mesh(here.mesh):
    moved = apart.move(tree, {"x": there})["x"]
  assert moved.sharding == there
  for shard in moved.addressable_shards:
    np.testing.assert_array_equal(shard.data, rows[shard.index])


REFUSED = [
  (Mesh(fsdp=4), {}, "teachers.teacher.mesh is .*'data': -1.*at least 1"),
  (Mesh(8), {}, "takes 8 of 8 devices, which leaves none for the student"),
  (Mesh(4, slices=2), {}, r"^teachers.teacher.mesh.slices is 2"),
  (Mesh(4), {"mesh": Mesh(8)}, "does not fit 4 devices.*mesh takes 4 of 8"),
  (Mesh(6), {}, "divide over 6 teachers.teacher.mesh rows"),
  (
    Mesh(1, 1, 1, 5),
    {"mesh": Mesh(1)},
    r"teachers.teacher.mesh.context 5.*seq_len of 15",
  ),
  (Mesh(4), {"place": "host"}, "place is 'host', but it has a mesh of its own"),
]


@pytest.mark.parametrize(("mesh", "changes", "said"), REFUSED)
def test_what_cannot_work_is_refused(mesh, changes, said):
  changes = dict(changes)
  teacher = config.Teacher(
    architecture=TEACHER, mesh=mesh, place=changes.pop("place", "device")
  )
  with pytest.raises(types.UserError, match=said):
    build(settings({"teacher": teacher}, **changes), texts())


def test_what_lies_where_is_told():
  teacher = config.Teacher(architecture=TEACHER, mesh=Mesh(1, 4))
  built = build(settings({"teacher": teacher}), texts())
  found = placement.of_run(built)
  assert found["mesh"]["data"] == found["apart"]["teacher"]["mesh"]["fsdp"] == 4
  own = found["totals"].pop("teacher")
  assert own["bytes_per_device"] == own["bytes"] // 4
  assert found["apart"]["teacher"]["bytes_per_device"] == own["bytes"] // 4
  # The head lies with the student once more.
  assert found["totals"]["teacher/head"]["bytes"] == 4 * V * TEACHER.width
  total = sum(t["bytes_per_device"] for t in found["totals"].values())
  assert found["bytes_per_device"] == total
  console = Console(file=io.StringIO(), width=200)
  console.print(
    placement.table(found | {"totals": found["totals"] | {"teacher": own}})
  )
  assert (
    "teacher has a mesh of its own, of 4: data 1" in console.file.getvalue()
  )


def test_flags_make_a_mesh_and_take_it_away():
  made = settings(KD)
  flags = ["--teachers.teacher.mesh.fsdp", "4", "--steps", "5"]
  found = config.override(made, flags)
  assert found.steps == 5
  assert found.teachers["teacher"].mesh == Mesh(1, 4)
  for words in (["--teachers.teacher.mesh", "None"],
                ["--teachers.teacher.mesh=None"]):  # fmt: skip
    back = config.override(found, [*words, "--steps", "3"])
    assert back == made
  coded = config_json.encode(found)
  assert config_json.decode(coded, where="here") == found
