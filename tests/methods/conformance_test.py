# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What every method promises, walked over all of `jdistill.methods`.

A new method is picked up by its import line; only one that cannot be built
from its defaults needs a line in `OWN`.
"""

import dataclasses
import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdistill import checkpoint, methods, schedules, sharding, step, types
from jdistill.methods import base
from jdistill.models import DecoderConfig, Mixture, Segment
from jdistill.models.classifier import MLPConfig

CLASSES = [
  cls
  for cls in vars(methods).values()
  if inspect.isclass(cls)
  and issubclass(cls, base.Method)
  and not inspect.isabstract(cls)
]
RISE = schedules.Linear(0.2, 1.0, 8)
OWN = {
  methods.DKD: lambda: methods.DKD(warmup=8),
  methods.Hinton: lambda: methods.Hinton(lam=RISE, tau=2.0),
  methods.Sum: lambda: methods.Sum(
    {
      "kd": methods.Part(methods.KD(), RISE),
      "weighted": methods.Part(methods.WeightedKD("kl"), 0.5),
      "hidden": methods.Part(methods.Features(projector="always"), 0.1),
    }
  ),
}
KINDS = {methods.RouterBalance: ("sparse",)}
MOVING = [methods.DKD, methods.Hinton, methods.Sum]
# These are measured token by token like `KD`: their decoders only if slow.
ALIKE = [methods.AlphaBetaKD, methods.DKD, methods.Hinton, methods.JSD,
         methods.SkewKL]  # fmt: skip
CASES = [
  pytest.param(
    cls,
    kind,
    id=f"{cls.__name__}-{kind}",
    marks=[pytest.mark.slow] if cls in ALIKE and kind == "decoder" else [],
  )
  for cls in CLASSES
  for kind in KINDS.get(cls, ("decoder", "classifier"))
]
# Sizes of `sharding.MeshShape`, or None for one device, and microbatches.
LAYOUTS = [
  ((2, 2, 2), 2),
  (None, 2),
  (None, 4),
  ((8, 1, 1), 1),
  ((1, 4, 2), 1),
  ((1, 2, 2, 2), 2),
]
SPARSE_LAYOUTS = [((1, 2, 1, 1, 4), 2), ((2, 1, 2, 1, 2), 2), *LAYOUTS]
LAYOUT_CASES = [
  pytest.param(
    cls,
    kind,
    *layout,
    id=f"{cls.__name__}-{kind}-{layout}",
    # A decoder takes seconds to compile: one layout by default, all if slow.
    marks=[pytest.mark.slow] if kind != "classifier" and layout_at else [],
  )
  for cls in CLASSES
  for kind in KINDS.get(cls, ("decoder", "classifier"))
  for layout_at, layout in enumerate(
    SPARSE_LAYOUTS if kind == "sparse" else LAYOUTS
  )
]
B, T, V = 8, 8, 32
# Compiles in half the time; the tests run each program once or twice.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def build(cls) -> base.Method:
  return OWN.get(cls, cls)()


def decoder(width: int, heads: int, layers: int) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=V,
    width=width,
    mlp_width=2 * width,
    num_heads=heads,
    num_kv_heads=heads,
    head_dim=8,
    segments=(Segment.uniform(layers),),
  )


@functools.cache
def models(kind: str):
  """Student and teacher of different widths, with parameters."""
  if kind != "classifier":
    student, teacher = decoder(16, 2, 2), decoder(24, 2, 2)
  if kind == "sparse":
    student = dataclasses.replace(
      student,
      segments=(Segment.uniform(2, sparse=True),),
      experts=Mixture(4, 2, 12),
    )
  if kind == "classifier":
    student = MLPConfig(classes=V, shape=(12,), widths=(16, 8))
    teacher = MLPConfig(classes=V, shape=(12,), widths=(24, 16))
  keys = jax.random.split(jax.random.key(0), 2)
  # Spread the logits: at random weights everybody says the same of all tokens.
  weights = jax.tree.map(lambda x: 3 * x, teacher.init(keys[1]))
  return student, teacher, student.init(keys[0]), {"teacher": weights}


def batch(kind: str, *, garbage: int = 0) -> types.Batch:
  """Rows with prompts, packed documents and padding; `garbage` is in it."""
  rng, noise = np.random.default_rng(0), np.random.default_rng(garbage)
  ids = np.arange(B, dtype=np.int32)
  if kind == "classifier":
    inputs = rng.normal(size=(B, 12)).astype(np.float32)
    targets = rng.integers(V, size=B).astype(np.int32)
    mask = (ids < B - 1).astype(np.float32)
    inputs[-1] = noise.normal(size=12)
    targets[-1] = noise.integers(V)
    view = types.Examples(inputs, targets, mask)
    return jax.tree.map(jnp.asarray, types.Batch({"student": view}, {}, ids))
  length = np.array([8, 7, 6, 8, 3, 8, 5, 0])
  at = np.arange(T)[None]
  real = at < length[:, None]
  second = at >= 4
  segments = np.where(real, np.where(second, 2, 1), 0).astype(np.int32)
  positions = np.where(second, at - 4, at).repeat(B, 0)[:B].astype(np.int32)
  mask = (real & (at % 4 != 0)).astype(np.float32)
  tokens, targets = rng.integers(V, size=(2, B, T)).astype(np.int32)
  junk = noise.integers(V, size=(2, B, T)).astype(np.int32)
  tokens = np.where(real, tokens, junk[0])
  targets = np.where(mask > 0, targets, junk[1])
  view = types.Tokens(tokens, targets, mask, positions, segments)
  return jax.tree.map(jnp.asarray, types.Batch({"student": view}, {}, ids))


def start(method: base.Method, kind: str):
  """Trained and frozen parameters."""
  student, teacher, weights, frozen = models(kind)
  wants = method.wants()
  shapes = {
    name: jax.eval_shape(
      lambda p, v, a=a, name=name: a.bind(p)(v, want=wants.get(name, ())),
      a.shapes(),
      batch(kind)["student"],
    )
    for name, a in (("student", student), ("teacher", teacher))
  }
  own = method.init(jax.random.key(1), shapes)
  return {"student": weights, "method": own}, frozen


def make_gradient(method: base.Method, kind: str, microbatches: int = 1):
  student, teacher, _, _ = models(kind)
  return step.make_gradient(
    student, {"teacher": teacher}, method, microbatches=microbatches
  )


@functools.cache
def on_one_device(cls, kind: str):
  """A compiled gradient, and what it says of the plain batch at step 3."""
  gradient = jit(make_gradient(build(cls), kind))
  params, frozen = start(build(cls), kind)
  return gradient, gradient(params, frozen, batch(kind), jnp.int32(3))


def on_mesh(cls, kind: str, shape, microbatches: int):
  """The same on a mesh, parameters and rows divided over it."""
  student, teacher, _, _ = models(kind)
  mesh = sharding.make_mesh(sharding.MeshShape(*shape))
  params, frozen = start(build(cls), kind)
  axes = {
    "student": student.axes(),
    "method": jax.tree.map(lambda x: (None,) * x.ndim, params["method"]),
  }
  places = (
    sharding.param_shardings(axes, params, mesh),
    sharding.param_shardings({"teacher": teacher.axes()}, frozen, mesh),
    sharding.of_batch(batch(kind), mesh),
    sharding.replicated(mesh),
  )
  gradient = make_gradient(build(cls), kind, microbatches)
  args = jax.device_put((params, frozen, batch(kind), jnp.int32(3)), places)
  with jax.set_mesh(mesh):
    return jit(gradient)(*args)


def assert_same(found, expected, *, rtol: float = 1e-5):
  """The same gradient to `rtol` of its norm, and the same loss and metrics."""
  (grads, loss), (want, want_loss) = jax.device_get((found, expected))
  gap = jax.tree.map(np.subtract, grads, want)
  norm = float(optax.global_norm(want))
  assert norm > 1e-4
  assert float(optax.global_norm(gap)) <= rtol * norm
  chex.assert_trees_all_close(loss, want_loss, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("cls", "kind"), CASES)
def test_padding_changes_nothing(cls, kind):
  gradient, plain = on_one_device(cls, kind)
  params, frozen = start(build(cls), kind)
  other = batch(kind, garbage=7)
  moved = [
    bool((a != b).any())
    for a, b in zip(
      jax.tree.leaves(batch(kind)), jax.tree.leaves(other), strict=True
    )
  ]
  assert any(moved)
  assert_same(gradient(params, frozen, other, jnp.int32(3)), plain, rtol=1e-6)


@pytest.mark.parametrize(("cls", "kind", "shape", "microbatches"), LAYOUT_CASES)
def test_layout_changes_nothing(cls, kind, shape, microbatches):
  if build(cls).batch_coupled:
    if shape is None:
      return  # accumulation is refused: see the test below
    microbatches = 1
  _, expected = on_one_device(cls, kind)
  if shape is not None:
    found = on_mesh(cls, kind, shape, microbatches)
  else:
    gradient = jit(make_gradient(build(cls), kind, microbatches))
    params, frozen = start(build(cls), kind)
    found = gradient(params, frozen, batch(kind), jnp.int32(3))
  assert_same(found, expected)


@pytest.mark.parametrize("cls", CLASSES)
def test_accumulation_is_refused_where_it_would_change_the_loss(cls):
  method = build(cls)
  student, teacher, _, _ = models("decoder")

  def make():
    return step.make_train_step(
      student, {"teacher": teacher}, method, optax.sgd(1.0), microbatches=2
    )

  if not method.batch_coupled:
    assert callable(make())
    return
  with pytest.raises(types.UserError, match=f"microbatches=2: {cls.__name__}"):
    make()


@pytest.mark.parametrize("cls", CLASSES)
def test_teachers_get_no_gradient(cls):
  method = build(cls)
  kind = KINDS.get(cls, ("classifier",))[0]
  student, teacher, _, _ = models(kind)
  params, frozen = start(method, kind)
  loss = step.make_loss(student, {"teacher": teacher}, method)
  data = batch(kind)

  def total(frozen):
    wants = method.wants()
    own = step.Speaker(
      student.bind(params["student"]), data, wants.get("student", ())
    )
    other = step.Speaker(
      teacher.bind(frozen["teacher"]), data, wants.get("teacher", ())
    )
    arrays = method.survey(params["method"], own, {"teacher": other}, data)
    ready = method.prepare(arrays, data)
    keys = jax.random.split(jax.random.key(0), B)
    ctx = base.Context(jnp.int32(3), keys, method.norms(ready))
    return loss(params, frozen, ready, ctx).total

  # Zeros that nothing computes: the gradient is absent, not merely small.
  grads = jit(jax.grad(total))(frozen)
  assert all(not bool(jnp.any(x)) for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("cls", MOVING)
def test_moving_schedules_compile_once(cls):
  params, frozen = start(build(cls), "classifier")
  chex.clear_trace_counter()
  gradient = jit(
    chex.assert_max_traces(make_gradient(build(cls), "classifier"), n=1)
  )
  totals = [
    float(gradient(params, frozen, batch("classifier"), jnp.int32(at))[1].total)
    for at in (0, 3, 8)
  ]
  assert len(set(totals)) == 3


def test_parameters_and_state_survive_a_checkpoint(tmp_path):
  trained = {}
  for cls in CLASSES:
    params, _ = start(build(cls), KINDS.get(cls, ("decoder",))[0])
    trained[cls.__name__] = params["method"]
  params = {"student": models("decoder")[2], "method": trained}
  assert jax.tree.leaves(trained)
  params = jax.tree.map(lambda x: x + 1 / 3, params)
  state = types.TrainState(
    jnp.int32(5), params, optax.adam(1e-3).init(params), {"ema": params}
  )
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state
  )
  with checkpoint.Checkpoints(tmp_path / "checkpoints") as saved:
    saved.save(5, state, {"at": 1})
    saved.wait()
    found = saved.restore(5, like)
  chex.assert_trees_all_equal(found.state, state)
  assert found.position == {"at": 1}
