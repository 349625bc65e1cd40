# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The train step through `run.build`: twenty updates, the same everywhere."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jdistill import (
  config,
  data,
  methods,
  optim,
  pretrained,
  refs,
  run,
  sharding,
  types,
)
from jdistill import models as models_lib
from jdistill.models import DecoderConfig, Mixture, Segment

B, T, V, STEPS = 8, 8, 32, 20


def decoder(width: int, layers: int) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=V,
    width=width,
    mlp_width=2 * width,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    segments=(Segment.uniform(layers),),
  )


TEACHER, STUDENT = decoder(24, 3), decoder(16, 2)
SPARSE = dataclasses.replace(
  STUDENT,
  segments=(Segment.uniform(1), Segment.uniform(1, sparse=True)),
  experts=Mixture(4, 2, 16),
)


class Drawn(pretrained.Found):
  """A teacher that is drawn, not read."""

  def params(self, *, dtype="float32", shardings=None):
    del dtype
    params = TEACHER.init(jax.random.key(7))
    params = jax.tree.map(lambda x: 3 * x, params)
    if shardings is None:
      return params
    return jax.device_put(params, shardings(TEACHER, params))


NOWHERE = refs.Located("drawn", "huggingface", pathlib.Path("drawn"))


def make(*, mesh=(1, 1, 1), devices=8, student=STUDENT, **changes) -> run.Run:
  fields = {
    "student": config.Fresh(student),
    "teachers": {"teacher": config.Teacher("drawn")},
    "method": methods.Sum(
      {
        "kd": methods.Part(methods.KD()),
        "ce": methods.Part(methods.CrossEntropy(), 0.3),
      }
    ),
    "data": data.TextData(seq_len=T, batch_size=B),
    "optimizer": optim.AdamW(lr=1e-2, weight_decay=0.1),
    "steps": STEPS,
    "mesh": sharding.MeshShape(*mesh),
  }
  found = {"teacher": Drawn("drawn", NOWHERE, TEACHER)}
  models = run.Models(found, student, None, None)
  return run.build(
    config.Config(**(fields | changes)),
    models,
    batch(0),
    devices=jax.devices()[:devices],
  )


def batch(index: int) -> types.Batch:
  """Packed rows with padding, the same whoever asks."""
  rng = np.random.default_rng(index)
  tokens = rng.integers(V, size=(B, T)).astype(np.int32)
  length = rng.integers(3, T + 1, size=(B, 1))
  at = np.arange(T, dtype=np.int32)[None]
  real = at < length
  view = types.Tokens(
    tokens=tokens,
    targets=np.roll(tokens, -1, axis=1),
    mask=real.astype(np.float32),
    positions=np.broadcast_to(at, (B, T)).copy(),
    segment_ids=real.astype(np.int32),
  )
  ids = np.arange(B, dtype=np.int32) + B * index
  return types.Batch({"student": view}, {}, ids)


def losses_of(built: run.Run, steps: int = STEPS):
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    state, found = built.init_state(teachers), []
    for index in range(steps):
      placed = sharding.place_rows(batch(index), built.mesh)
      state, metrics = built.train_step(state, teachers, placed)
      found.append(metrics["loss"].sum)
    return np.asarray(jax.device_get(found)), state


@functools.cache
def on_one_device():
  return losses_of(make(devices=1))


@functools.cache
def of_a_mixture(mesh, microbatches, devices=8):
  method = methods.Sum(
    {
      "kd": methods.Part(methods.KD()),
      "balance": methods.Part(methods.RouterBalance(), 0.1),
    }
  )
  built = make(
    mesh=mesh,
    microbatches=microbatches,
    devices=devices,
    student=SPARSE,
    method=method,
  )
  return losses_of(built)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("mesh", "microbatches"),
  [
    ((1, 2, 1, 1, 4), 1),
    ((2, 1, 2, 1, 2), 2),
    ((1, 1, 4, 1, 2), 4),
    ((1, 4, 2), 2),
    ((1, 1, 2, 2, 2), 2),
  ],
)
def test_experts_learn_the_same_on_any_mesh(mesh, microbatches):
  expected = of_a_mixture((1, 1, 1), 1, devices=1)
  assert expected[-1] < expected[0]
  found = of_a_mixture(mesh, microbatches)
  np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize(
  ("mesh", "microbatches"),
  [
    # Minutes together, most of it compilation.
    pytest.param((2, 2, 2), 2, marks=pytest.mark.slow),
    pytest.param((1, 2, 4), 4, marks=pytest.mark.slow),
    pytest.param((8, 1, 1), 1, marks=pytest.mark.slow),
    pytest.param((1, 8, 1), 1, marks=pytest.mark.slow),
  ],
)
def test_twenty_losses_are_the_same_on_any_mesh(mesh, microbatches):
  expected, _ = on_one_device()
  got, _ = losses_of(make(mesh=mesh, microbatches=microbatches))
  assert expected[-1] < expected[0]
  np.testing.assert_allclose(got, expected, rtol=2e-4)


def test_the_step_compiles_once_and_donates_its_state():
  built = make(devices=1)
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    state = built.init_state(teachers)
    kept = state.params["student"]["embedding"]["weight"]
    for index in range(3):
      placed = sharding.place_rows(batch(index), built.mesh)
      state, _ = built.train_step(state, teachers, placed)
  assert kept.is_deleted()
  assert built.train_step._cache_size() == 1  # pyrefly: ignore


def test_frozen_rows_do_not_move_not_even_by_decay():
  freeze = (
    optim.Freeze("student/embedding/*", rows=(4, 20)),
    optim.Freeze("student/segment_0/*", rows=(0, 1)),
  )
  built = make(devices=1, freeze=freeze)
  with jax.set_mesh(built.mesh):
    before = jax.device_get(built.init_state(built.load_teachers()).params)
  _, state = losses_of(built, 3)
  after = jax.device_get(state.params)
  old, new = (p["student"]["embedding"]["weight"] for p in (before, after))
  np.testing.assert_array_equal(old[4:20], new[4:20])
  assert np.all(np.abs(old[20:] - new[20:]).max(-1) > 0)
  layers = [p["student"]["segment_0"] for p in (before, after)]
  for path, leaf in jax.tree_util.tree_leaves_with_path(layers[0]):
    moved = layers[1]
    for key in path:
      moved = moved[key.key]
    np.testing.assert_array_equal(leaf[0], moved[0])
    assert np.abs(leaf[1] - moved[1]).max() > 0, path


def test_the_average_of_weights_follows_its_recurrence():
  built, rate = make(devices=1, ema=0.9), 0.9
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    state = built.init_state(teachers)
    expected = jax.device_get(state.params["student"])
    for index in range(3):
      placed = sharding.place_rows(batch(index), built.mesh)
      state, _ = built.train_step(state, teachers, placed)
      now = jax.device_get(state.params["student"])
      expected = jax.tree.map(
        lambda a, b: rate * a + (1 - rate) * b, expected, now
      )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    jax.device_get(state.extra["ema"]),
    expected,
  )


def test_the_average_of_weights_is_divided_like_them():
  places = make(mesh=(1, 4, 2), ema=0.9).state_shardings
  assert places.extra["ema"] == places.params["student"]
  parts = {place.spec for place in jax.tree.leaves(places.extra["ema"])}
  assert len(parts) > 1


def test_padding_rows_change_nothing():
  """The same rows with garbage where nothing counts."""
  built = make(devices=1)
  clean = batch(0)
  view = clean["student"]
  garbage = jnp.where(view.mask > 0, view.tokens, 31 - view.tokens)
  targets = jnp.where(view.mask > 0, view.targets, 0)
  spoilt = types.Tokens(
    np.asarray(garbage), np.asarray(targets), view.mask, view.positions,
    view.segment_ids,
  )  # fmt: skip
  found = []
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    for one in (view, spoilt):
      whole = types.Batch({"student": one}, {}, clean.example_id)
      placed = sharding.place_rows(whole, built.mesh)
      state = built.init_state(teachers)
      _, metrics = built.train_step(state, teachers, placed)
      found.append(
        [float(metrics[k].sum) for k in ("loss", "grad_norm", "kd/forward_kl")]
      )
  np.testing.assert_allclose(*found, rtol=1e-6)


def test_what_does_not_divide_is_refused_with_the_sizes():
  with pytest.raises(types.UserError, match=r"batch_size is 8.*multiple of 24"):
    make(mesh=(8, 1, 1), microbatches=3)
  with pytest.raises(types.UserError, match="does not fit 8 devices"):
    make(mesh=(3, 1, 1))
  with pytest.raises(types.UserError, match=r"divide 4 experts.*1, 2, 4"):
    make(mesh=(1, 1, 1, 1, 8), student=SPARSE)


def test_a_teacher_that_is_not_there_is_named():
  alone = config.Config(
    student=config.Fresh(STUDENT),
    method=methods.KD(),
    data=data.TextData(seq_len=T, batch_size=B),
    steps=1,
  )
  models = run.Models({}, STUDENT, None, None)
  with pytest.raises(types.UserError, match="needs a teacher named 'teacher'"):
    run.build(alone, models, batch(0))


class Normalised(nn.Module):
  """Somebody's own classifier, with statistics beside its parameters."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(6)(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
    return nn.Dense(3)(nn.relu(x))


def classifier(**changes) -> tuple[run.Run, types.Batch]:
  student = models_lib.LinenArchitecture(
    Normalised(),
    kind="inputs",
    shape=(4,),
    kwargs={"train": True},
    eval_kwargs={"train": False},
    mutable=("batch_stats",),
  )
  made = config.Config(
    student=config.Fresh(student),
    method=methods.CrossEntropy(),
    data=data.ArrayData("npz:none.npz", batch_size=B),
    optimizer=optim.AdamW(lr=1e-2, weight_decay=0.5),
    steps=STEPS,
    **changes,
  )
  rng = np.random.default_rng(0)
  view = types.Examples(
    rng.normal(2.0, 3.0, size=(B, 4)).astype(np.float32),
    rng.integers(3, size=B).astype(np.int32),
    np.ones(B, np.float32),
  )
  rows = types.Batch({"student": view}, {}, np.arange(B, dtype=np.int32))
  models = run.Models({}, student, None, None)
  return run.build(made, models, rows, devices=jax.devices()[:1]), rows


def test_batch_statistics_follow_the_batches_and_serve_evaluation():
  built, rows = classifier()
  with jax.set_mesh(built.mesh):
    placed = sharding.place_rows(rows, built.mesh)
    state = built.init_state({})
    before = jax.device_get(state.params["student"])
    state, _ = built.train_step(state, {}, placed)
    after = jax.device_get(state.params["student"])
    sums = built.eval_step(state.params["student"], {}, placed)
  dense = before["params"]["Dense_0"]
  hidden = rows["student"].inputs @ dense["kernel"] + dense["bias"]
  stats = after["batch_stats"]["BatchNorm_0"]
  np.testing.assert_allclose(stats["mean"], hidden.mean(0) / 2, rtol=1e-4)
  np.testing.assert_allclose(stats["var"], (1 + hidden.var(0)) / 2, rtol=1e-4)
  logits = Normalised().apply(after, rows["student"].inputs, train=False)
  log_probs = jax.nn.log_softmax(logits)
  expected = -log_probs[np.arange(B), rows["student"].targets].mean()
  np.testing.assert_allclose(float(sums["ce"].sum) / B, expected, rtol=1e-5)


def test_batch_statistics_refuse_accumulation():
  built, rows = classifier(microbatches=2)
  with (
    jax.set_mesh(built.mesh),
    pytest.raises(types.UserError, match="keeps batch_stats of each batch"),
  ):
    built.train_step(
      built.init_state({}), {}, sharding.place_rows(rows, built.mesh)
    )
