# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs whose student goes by what its teacher says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import (
  beds,
  config,
  data,
  losses,
  methods,
  models,
  optim,
  placement,
  rollout,
  run,
  sharding,
  step,
  types,
)
from jdistill.plan import planning
from jdistill.sampling import Sampling

CHAIN = beds.MarkovChain(vocab_size=8, order=1)
LAYERS = {
  "vocab_size": 8,
  "width": 16,
  "mlp_width": 24,
  "num_heads": 2,
  "num_kv_heads": 2,
  "head_dim": 8,
}
DRAFT = models.FeatureDraft(**LAYERS, noise=0.01)
TARGET = models.DecoderConfig(**LAYERS, segments=(models.Segment.uniform(2),))
TEXT = beds.BedData(CHAIN, seq_len=16, batch_size=8)


def settings(**changes) -> config.Config:
  fields = {
    "student": config.Fresh(DRAFT),
    "teachers": {"teacher": config.Teacher(architecture=TARGET)},
    "method": methods.Sum(
      {
        "eagle": methods.Part(methods.EAGLE()),
        "kd": methods.Part(methods.KD(), 0.1),
      }
    ),
    "data": TEXT,
    "optimizer": optim.AdamW(lr=1e-2),
    "mesh": sharding.MeshShape(1),
    "steps": 4,
  }
  return config.Config(**fields | changes)


def build(made: config.Config) -> run.Run:
  rows = placement.batch_shapes(made.data, made.group_size)
  return run.build(made, run.find_models(made), rows)


def first_batch() -> types.Batch:
  batch = run.to_batch(next(data.load(TEXT, seed=0)))
  return jax.tree.map(jnp.asarray, batch)


@pytest.mark.slow
def test_a_run_trains_and_judges_it():
  built = build(settings())
  rows = first_batch()
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    state, found = built.init_state(teachers), []
    for _ in range(4):
      state, metrics = built.train_step(state, teachers, rows)
      found.append(metrics)
    own = state.params["student"]
    judged = built.eval_step(own, teachers, rows)
  assert set(own) == {"fc", "segment_0"}
  means = [
    {k: float(m.sum / m.weight) for k, m in row.items()} for row in found
  ]
  assert means[-1]["loss"] < means[0]["loss"]
  parts = means[0]["eagle/smooth_l1"] + 0.1 * (
    means[0]["eagle/soft_ce"] + means[0]["kd/forward_kl"]
  )
  np.testing.assert_allclose(means[0]["loss"], parts, rtol=1e-5)
  # The figures of evaluations are those of the draft without noise.
  view = rows["student"]
  heard = TARGET.bind(teachers["teacher"])(view, want=("embed",))
  said = DRAFT.bind(own)(view, heard=heard)
  kl = (losses.forward_kl(said.logits, heard.logits) * view.mask).sum()
  np.testing.assert_allclose(judged["kl"].sum, kl, rtol=1e-4)


def test_the_teacher_speaks_once():
  calls = []

  @dataclasses.dataclass(frozen=True)
  class Counted(models.DecoderConfig):
    def bind(self, params):
      model = super().bind(params)

      def say(view, want=()):
        calls.append(want)
        return model(view, want=want)

      return say

  target = Counted(**LAYERS, segments=(models.Segment.uniform(1),))
  gradient = step.make_gradient(DRAFT, {"teacher": target}, settings().method)
  params = {
    "student": DRAFT.shapes(),
    "method": {"eagle": {}, "kd": {}},
  }
  weights = {"teacher": target.shapes()}
  jax.eval_shape(gradient, params, weights, first_batch(), jnp.int32(0))
  assert calls == [("embed",)]


def test_noise_is_of_the_step_and_the_row():
  gradient = jax.jit(
    step.make_gradient(
      dataclasses.replace(DRAFT, noise=0.5),
      {"teacher": TARGET},
      methods.EAGLE(),
    )
  )
  params = {"student": DRAFT.init(jax.random.key(0)), "method": {}}
  weights = {"teacher": TARGET.init(jax.random.key(1))}
  rows = first_batch()
  other = dataclasses.replace(rows, example_id=rows.example_id + 1)

  def total(batch, at):
    return float(gradient(params, weights, batch, jnp.int32(at))[1].total)

  assert total(rows, 1) == total(rows, 1)
  assert len({total(rows, 1), total(rows, 2), total(other, 1)}) == 3


def test_its_operations_are_counted():
  """A decoder's of one such layer, and the product before it."""
  rows = first_batch()
  draft = planning.count(build(settings()), rows, 0.0)
  decoder = dataclasses.replace(TARGET, segments=DRAFT.segments)
  other = settings(student=config.Fresh(decoder), method=methods.KD())
  plain = planning.count(build(other), rows, 0.0)
  assert draft.teacher == plain.teacher
  more = 3 * 2 * rows["student"].mask.size * 2 * TARGET.width**2
  assert draft.student == plain.student + more


ANSWERS = Sampling(max_new_tokens=8)
PROMPTS = data.Prompts(TEXT, prompt_tokens=4, batch_size=8)


def test_its_teacher_may_write():
  built = build(settings(data=PROMPTS, rollout=rollout.Teacher(ANSWERS)))
  assert built.write is not None


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"teachers": {}}, "needs a teacher named 'teacher'"),
    (
      {
        "teachers": {
          "truth": config.Teacher(architecture=CHAIN),
          "teacher": config.Teacher(architecture=TARGET),
        }
      },
      "'teacher' says.*has to be the first; teachers has truth, teacher",
    ),
    (
      {"teachers": {"teacher": config.Teacher(architecture=CHAIN)}},
      "feature 'embed': a MarkovChain has no features",
    ),
    (
      {
        "teachers": {
          "teacher": config.Teacher(
            architecture=dataclasses.replace(TARGET, width=24)
          )
        }
      },
      "width 16 and vocab_size 8 cannot go by a target of width 24",
    ),
    (
      {
        "teachers": {
          "teacher": config.Teacher(architecture=TARGET),
          "other": config.Teacher("student"),
        }
      },
      "teachers.other: a FeatureDraft goes by what another model says",
    ),
    ({"samples": ("A",)}, "samples: the student is a FeatureDraft"),
    (
      {"data": PROMPTS, "rollout": rollout.Student(ANSWERS)},
      "says nothing by itself",
    ),
  ],
)
def test_what_cannot_work_is_refused(changes, said):
  with pytest.raises(types.UserError, match=said):
    build(settings(**changes))
