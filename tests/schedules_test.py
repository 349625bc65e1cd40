# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Values at the boundaries, and the way through JSON and the config."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import config, config_json, data, methods, optim, schedules, types
from jdistill.schedules import Constant, Cosine, Linear, WarmupDecay

ALL = [
  Constant(0.25),
  Linear(1.0, 0.2, 8),
  Cosine(0.2, 1.0, 8),
  WarmupDecay(peak=2.0, steps=20, warmup=4, final=0.1),
  WarmupDecay(peak=2.0, steps=20, shape="linear"),
  WarmupDecay(peak=2.0, warmup=3, shape="constant"),
]


def at(schedule, *steps: int) -> np.ndarray:
  """Values at steps, as a train step would see them."""
  call = jax.jit(schedule)
  return np.stack([call(jnp.asarray(s, jnp.int32)) for s in steps])


def close(got, expected):
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_constant():
  close(at(Constant(0.3), 0, 1, 10**9), [0.3, 0.3, 0.3])


def test_constant_of_nothing_is_no_schedule():
  with pytest.raises(ValueError, match="nothing to schedule"):
    Constant(None)(jnp.zeros((), jnp.int32))


def test_linear():
  close(at(Linear(1.0, 0.0, 4), 0, 1, 2, 4, 5, 99), [1, 0.75, 0.5, 0, 0, 0])
  close(at(Linear(0.2, 1.0, 8), 0, 4, 8), [0.2, 0.6, 1.0])


def test_cosine():
  quarter = (1 + np.cos(np.pi / 4)) / 2
  close(at(Cosine(1.0, 0.0, 4), 0, 1, 2, 4, 9), [1, quarter, 0.5, 0, 0])
  close(at(Cosine(0.2, 1.0, 8), 0, 4, 8), [0.2, 0.6, 1.0])


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_no_steps_jump_to_the_end(kind):
  close(at(kind(1.0, 0.5, 0), 0, 1, 2), [1.0, 0.5, 0.5])


def test_warmup_rises_to_the_peak_with_its_last_step():
  schedule = WarmupDecay(peak=2.0, steps=12, warmup=4, shape="constant")
  close(at(schedule, 0, 1, 2, 3, 4, 11, 50), [0.5, 1, 1.5, 2, 2, 2, 2])


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_decay_starts_after_the_warmup_and_stays_at_its_end(shape):
  schedule = WarmupDecay(peak=2.0, steps=12, warmup=4, final=0.25, shape=shape)
  middle = 2.0 * (0.25 + 0.75 / 2)
  close(at(schedule, 3, 4, 8, 12, 99), [2.0, 2.0, middle, 0.5, 0.5])


def test_without_warmup_the_first_step_has_the_peak():
  schedule = WarmupDecay(peak=3.0, steps=10, shape="linear")
  close(at(schedule, 0, 1, 5, 10), [3.0, 2.7, 1.5, 0.0])


def test_warmup_longer_than_the_run_stays_finite():
  schedule = WarmupDecay(peak=1.0, steps=4, warmup=8)
  close(at(schedule, 0, 3, 8, 9), [0.125, 0.5, 1.0, 0.0])


def test_a_shape_that_does_not_exist_is_refused():
  """Set behind the back of the tests' type checker, which nobody else has."""
  schedule = WarmupDecay(peak=1.0)
  object.__setattr__(schedule, "shape", "cos")
  with pytest.raises(types.UserError, match=r"shape is 'cos'; .*cosine, lin"):
    schedule.__post_init__()


def test_numbers_and_schedules_are_read_alike():
  step = jnp.asarray(2, jnp.int32)
  for value in (0.5, Linear(1.0, 0.0, 4), Constant(0.5)):
    got = schedules.at(value, step)
    assert (got.shape, got.dtype) == ((), jnp.float32)
    close(got, 0.5)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_a_moving_step_compiles_once(schedule):
  chex.clear_trace_counter()

  @jax.jit
  @chex.assert_max_traces(n=1)
  def value(step):
    return schedules.at(schedules.resolve(schedule, 20), step)

  got = [value(jnp.asarray(s, jnp.int32)) for s in (0, 1, 4, 19, 20, 25)]
  assert {(v.shape, v.dtype) for v in got} == {((), jnp.dtype("float32"))}
  assert np.isfinite(got).all()


def test_an_open_schedule_takes_the_steps_of_its_run():
  with pytest.raises(ValueError, match=r"schedules\.resolve"):
    WarmupDecay(peak=1.0)(jnp.zeros((), jnp.int32))
  got = schedules.resolve(WarmupDecay(peak=1.0, warmup=2), 10)
  assert got == WarmupDecay(peak=1.0, warmup=2, steps=10)
  fixed = WarmupDecay(peak=1.0, steps=7)
  assert schedules.resolve(fixed, 10) is fixed


def whole(lr, weight) -> config.Config:
  return config.Config(
    student=config.Cut((0, 2)),
    teachers={"teacher": config.Teacher("here")},
    method=methods.Sum({"kd": methods.Part(methods.KD(), weight)}),
    data=data.TextData(),
    optimizer=optim.AdamW(lr=lr),
    steps=30,
  )


def test_resolve_reaches_every_depth_and_leaves_the_rest():
  made = whole(WarmupDecay(peak=1.0), WarmupDecay(peak=0.5, shape="linear"))
  got = schedules.resolve(made, made.steps)
  assert got.optimizer.lr.steps == 30
  assert got.method.parts["kd"].weight.steps == 30
  assert made.optimizer.lr.steps is None
  assert (got.data, got.student) == (made.data, made.student)
  assert schedules.resolve(got, 99) is got
  closed = whole(1e-3, Linear(1.0, 0.0, 5))
  assert schedules.resolve(closed, 30) is closed
  pair = (WarmupDecay(peak=1.0), 3)
  assert schedules.resolve(pair, 5)[0].steps == 5
  assert schedules.resolve([1, "x", None], 5) == [1, "x", None]


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_json_round_trip(schedule):
  tree = json.loads(json.dumps(config_json.encode(schedule)))
  assert tree["type"] == f"jdistill.schedules.{type(schedule).__name__}"
  assert config_json.decode(tree) == schedule
  config_tree = json.loads(
    json.dumps(config_json.encode(whole(schedule, schedule)))
  )
  assert config_json.decode(config_tree) == whole(schedule, schedule)


def test_flags_reach_into_a_schedule():
  made = whole(WarmupDecay(peak=1.0), 1.0)
  flags = ["--optimizer.lr.warmup", "5", "--optimizer.lr.shape", "linear"]
  got = config.override(made, flags)
  assert got.optimizer.lr == dataclasses.replace(
    made.optimizer.lr, warmup=5, shape="linear"
  )
  with pytest.raises(SystemExit) as stop:
    config.override(made, ["--optimizer.lr.shape", "cos"])
  assert stop.value.code == 2
