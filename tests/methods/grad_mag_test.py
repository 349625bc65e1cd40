# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""GradMag against gradients of whole models, taken one part at a time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdistill import methods, optim, step, types
from jdistill.models import DecoderConfig, Segment
from jdistill.models.classifier import MLPConfig
from jdistill.plan import flops

B, T, V = 4, 6, 32
STUDENT = DecoderConfig(
  vocab_size=V,
  width=16,
  mlp_width=32,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  segments=(Segment.uniform(3),),
)
PARTS = {
  "kd": methods.Part(methods.KD()),
  "ce": methods.Part(methods.CrossEntropy(), 0.25),
  "hidden": methods.Part(methods.Features((("layers/2/out", "layers/1/out"),))),
}
RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.integers(V, size=(B, T + 1)), jnp.int32)
BATCH = types.Batch(
  {
    "student": types.Tokens(
      tokens=TOKENS[:, :-1],
      targets=TOKENS[:, 1:],
      mask=jnp.asarray(RNG.random((B, T)) < 0.8, jnp.float32),
      positions=jnp.broadcast_to(jnp.arange(T), (B, T)),
      segment_ids=jnp.ones((B, T), jnp.int32),
    )
  },
  {},
  jnp.arange(B),
)


def weights(student, seed):
  return jax.tree.map(lambda x: 2 * x, student.init(jax.random.key(seed)))


PARAMS = weights(STUDENT, 0)
TEACHER = {"teacher": weights(STUDENT, 1)}


def gradient(method, student=STUDENT, params=PARAMS, **kwargs):
  """Of all weights, and the loss."""
  teachers = {"teacher": student}
  shapes = step.output_shapes(student, teachers, method, BATCH)
  own = method.init(jax.random.key(2), shapes)
  find = step.make_gradient(student, teachers, method, **kwargs)
  return jax.jit(find)(
    {"student": params, "method": own}, TEACHER, BATCH, jnp.int32(0)
  )


def mean(loss, name) -> float:
  return float(loss.metrics[name].sum / loss.metrics[name].weight)


@functools.cache
def alone():
  """Each part's gradient, and the norm of the last layer's share."""
  found = {
    name: gradient(methods.Sum({name: methods.Part(p.method)}))[0]
    for name, p in PARTS.items()
  }
  norms = {
    name: optax.global_norm(
      jax.tree.map(lambda a: a[-1], g["student"]["segment_0"])
    )
    for name, g in found.items()
  }
  return {k: g["student"] for k, g in found.items()}, norms


@pytest.mark.slow
@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_parts_count_by_one_over_their_gradients(preserve, microbatches):
  each, norms = alone()
  factors = {name: PARTS[name].weight / norms[name] for name in PARTS}
  if preserve:
    factors = {k: v / sum(factors.values()) for k, v in factors.items()}
  wanted = jax.tree.map(
    lambda *gs: sum(f * g for f, g in zip(factors.values(), gs, strict=True)),
    *each.values(),
  )
  found, loss = gradient(
    methods.GradMag(PARTS, preserve=preserve), microbatches=microbatches
  )
  gap = jax.tree.map(jnp.subtract, found["student"], wanted)
  assert optax.global_norm(gap) < 2e-5 * optax.global_norm(wanted)
  for name in PARTS:
    assert mean(loss, f"{name}/gradient_norm") == pytest.approx(
      float(norms[name]), rel=1e-5
    )
    assert mean(loss, f"{name}/weight") == pytest.approx(
      float(factors[name]), rel=1e-5
    )


@pytest.mark.slow
def test_a_part_a_thousand_times_as_large_pulls_no_harder():
  """Which is what a plain sum does not do."""

  @dataclasses.dataclass(frozen=True)
  class Loud(methods.TokenMethod):
    def needs(self):
      return methods.Needs(teachers=())

    def terms(self, logits, data, params, step):
      value = -jnp.take_along_axis(
        jax.nn.log_softmax(logits["student"]), data["targets"][:, None], 1
      )
      return {"ce": methods.Term(1000 * value[:, 0])}

  quiet = PARTS | {"ce": methods.Part(methods.CrossEntropy())}
  loud = PARTS | {"ce": methods.Part(Loud())}

  def moved(kind):
    one, other = (
      gradient(kind(parts))[0]["student"] for parts in (quiet, loud)
    )
    gap = jax.tree.map(jnp.subtract, one, other)
    return float(optax.global_norm(gap) / optax.global_norm(one))

  assert moved(methods.GradMag) < 1e-4
  assert moved(methods.Sum) > 1


def test_parts_cost_one_layer_each_not_the_model():
  deep = dataclasses.replace(STUDENT, segments=(Segment.uniform(40),))
  parts = {k: p for k, p in PARTS.items() if k != "hidden"}
  own = {name: {} for name in parts}
  args = {"student": deep.shapes(), "method": own}, TEACHER, BATCH, jnp.int32(0)

  def count(method):
    find = step.make_gradient(deep, {"teacher": STUDENT}, method)
    return flops.of_jaxpr(jax.make_jaxpr(find)(*args).jaxpr)

  # A step is a forward and a backward pass, twice as long. The gradients of
  # two parts through all layers would be as much twice again.
  plain = count(methods.Sum(parts))
  assert count(methods.GradMag(parts)) < 1.5 * plain


@pytest.mark.slow
def test_to_the_power_of_nothing_it_is_a_sum():
  found, _ = gradient(methods.GradMag(PARTS, power=0.0))
  wanted, _ = gradient(methods.Sum(PARTS))
  gap = jax.tree.map(jnp.subtract, found["student"], wanted["student"])
  assert optax.global_norm(gap) < 1e-6 * optax.global_norm(wanted["student"])


def test_what_does_not_move_does_not_count():
  freeze = (optim.Freeze("student/segment_0/attention/*"),)
  mask = optim.trainable(freeze, {"student": PARAMS, "method": {"ce": {}}})
  method = methods.GradMag({"ce": PARTS["ce"]})
  _, loss = gradient(method, mask=mask)
  whole, _ = gradient(methods.Sum({"ce": methods.Part(methods.CrossEntropy())}))
  part = {
    k: v for k, v in whole["student"]["segment_0"].items() if k != "attention"
  }
  norm = optax.global_norm(jax.tree.map(lambda a: a[-1], part))
  said = mean(loss, "ce/gradient_norm")
  assert said == pytest.approx(float(norm), rel=1e-5)
  frozen = optim.trainable(
    (optim.Freeze("student/segment_0/*"),),
    {"student": PARAMS, "method": {"ce": {}}},
  )
  with pytest.raises(types.UserError, match="last layer is frozen"):
    gradient(method, mask=frozen)


def test_other_models_are_told_which_layer_is_meant():
  student = MLPConfig(classes=V, shape=(12,), widths=(16, 8))
  rows = types.Batch(
    {
      "student": types.Examples(
        jnp.asarray(RNG.normal(size=(B, 12)), jnp.float32),
        TOKENS[:, 0],
        jnp.ones(B),
      )
    },
    {},
    jnp.arange(B),
  )
  params = student.init(jax.random.key(0))

  def run(method):
    find = step.make_gradient(student, {}, method)
    state = {"student": params, "method": {"ce": {}}}
    return jax.jit(find)(state, {}, rows, jnp.int32(0))

  parts = {"ce": methods.Part(methods.CrossEntropy())}
  with pytest.raises(types.UserError, match="MLPConfig does not say which"):
    run(methods.GradMag(parts))
  with pytest.raises(types.UserError, match=r"GradMag.last: 'tail/\*' matches"):
    run(methods.GradMag(parts, last=("tail/*",)))
  whole, _ = run(methods.Sum(parts))
  _, loss = run(methods.GradMag(parts, last=("head/*",)))
  norm = optax.global_norm(whole["student"]["head"])
  said = mean(loss, "ce/gradient_norm")
  assert said == pytest.approx(float(norm), rel=1e-5)


def test_a_part_of_earlier_layers_keeps_its_weight():
  below = methods.Features((("layers/0/out", "layers/0/out"),))
  parts = {"ce": PARTS["ce"], "below": methods.Part(below, 0.5)}
  _, loss = gradient(methods.GradMag(parts))
  assert mean(loss, "below/gradient_norm") == 0
  assert mean(loss, "below/weight") == 0.5


def test_it_is_the_method_of_a_run():
  inside = methods.Sum({"all": methods.Part(methods.GradMag(PARTS))})
  with pytest.raises(types.UserError, match="nobody measured kd/gradient"):
    gradient(inside)
