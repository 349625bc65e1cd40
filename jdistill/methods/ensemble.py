# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""An ensemble of teachers, as the one teacher of any method.

    probability:  p(v) = sum_i w_i p_i(v)
    logit:        z(v) = sum_i w_i z_i(v)
    log_prob:     p(v) = prod_i p_i(v)^w_i / Z

Paper: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531, Sec. 3 (arithmetic and
geometric means of what an ensemble says). Learned weights make the likelihood
of the text largest, as those of interpolated language models: Jelinek & Mercer,
1980, "Interpolated estimation of Markov source parameters from sparse data";
log-linear ones Klakow, 1998, "Log-linear interpolation of language models".
Fidelity: paper.
Departures: a temperature is the method's and acts on the average, not on each
teacher. Jelinek and Mercer find weights by expectation-maximisation on text
that was held out; here they follow the gradient on the text of the run, so a
teacher that was trained on this very text counts for too much.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, schedules, types
from jdistill.methods import base
from jdistill.methods.several import Average, Blend, Several, average

_LEAST = -1e4
"""Of logits where weights are learned: an id that one teacher excludes."""


@dataclasses.dataclass(frozen=True)
class Ensemble(Several):
  """A method whose teacher is a weighted average of several.

  Attributes:
    teachers: how much each counts, by name; they need not sum to 1. Those of
      weight 0 are left out. Schedules hand over from one to another: what has
      weight 0 at a step is not computed in it.
    average: "probability" is a mixture: it says what any of them says; "logit"
      and "log_prob" say what all of them say, and are the same distribution:
      they differ for methods that look at the logits themselves.
    weights: "fixed" as given; "learned" from there by the cross entropy of the
      average on the targets of the text, which moves the weights and nothing
      else. Rows that a model wrote do not count.
    pace: learned log weights are so many times their parameters, and move by
      about the learning rate times `pace` in each update of Adam.
  """

  teachers: dict[str, float | schedules.Schedule]
  average: Average = "probability"
  weights: Literal["fixed", "learned"] = "fixed"
  pace: float = 10.0

  def members(self) -> tuple[str, ...]:
    self._check()
    return tuple(
      name
      for name, weight in self.teachers.items()
      if isinstance(weight, schedules.Schedule) or weight > 0
    )

  def needs(self) -> base.Needs:
    own = super().needs()
    if self.weights == "learned" and "student" not in own.views:
      return dataclasses.replace(own, views=(*own.views, "student"))
    return own

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    found = super().init(key, shapes)
    if self.weights == "learned":
      given = jnp.asarray([self.teachers[k] for k in self.members()], float)
      found["weights"] = jnp.log(given / given.sum()) / self.pace
    return found

  def blend(
    self,
    params: types.PyTree,
    batch: types.Batch,
    step: jax.Array | None,
  ) -> Blend:
    del batch
    if self.weights == "learned":
      weights = jax.nn.softmax(self.pace * params["weights"])
      return Blend(weights, self.average, skips=False)
    given = [self.teachers[name] for name in self.members()]
    moving = any(isinstance(w, schedules.Schedule) for w in given)
    if not moving:
      values = jnp.asarray(given, float)
    elif step is not None:
      values = jnp.stack([schedules.at(w, step) for w in given])
    else:
      raise types.UserError(
        f"method: {type(self.method).__name__} looks at whole batches before "
        "the update, where schedules of Ensemble.teachers have no value; give "
        "numbers"
      )
    return Blend(values / values.sum(), self.average, skips=moving)

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    found = super().norms(batch)
    if self.weights == "learned":
      found["weights"] = _given(batch).sum()
    return found

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    loss = super().loss(params, student, teachers, batch, ctx)
    if self.weights == "fixed":
      return loss
    said = {name: teachers[name]("student") for name in self.members()}
    data = {"targets": batch["student"].targets, "mask": _given(batch)}
    inputs = {"weights": params["weights"], "norm": ctx.norms["weights"]}
    total, (ce, mask) = losses.walk(
      self._cross_entropy,
      base.same_ids(said),
      data,
      inputs,
      frozen=tuple(said),
    )
    now = jax.nn.softmax(self.pace * params["weights"])
    metrics = {"teachers/ce": types.Mean(ce, mask)}
    for name, weight in zip(said, now, strict=True):
      value = jax.lax.stop_gradient(weight) * mask
      metrics[f"teachers/{name}"] = types.Mean(value, mask)
    # A gradient and no value: the loss stays that of the student.
    moved = (total - jax.lax.stop_gradient(total)) / self.pace
    return dataclasses.replace(
      loss, total=loss.total + moved, metrics={**loss.metrics, **metrics}
    )

  def _cross_entropy(self, logits, data, inputs):
    weights = jax.nn.softmax(self.pace * inputs["weights"])
    said = [jnp.maximum(x, _LEAST) for x in logits.values()]
    together = average(said, weights, self.average)
    ce = losses.cross_entropy(together, data["targets"])
    value = jnp.where(data["mask"] != 0, ce * data["mask"], 0)
    return value / inputs["norm"], (value, data["mask"])

  def _check(self) -> None:
    for name, weight in self.teachers.items():
      moving = isinstance(weight, schedules.Schedule)
      if moving and self.weights == "learned":
        raise types.UserError(
          f"method.teachers.{name} is a schedule, and weights are 'learned'; "
          "give the number where they begin, or take 'fixed'"
        )
      if not moving and not 0 <= weight < float("inf"):
        raise types.UserError(
          f"method.teachers.{name} is {weight}; expected a weight of 0 or more"
        )
    if not any(self.teachers.values()):
      raise types.UserError(
        "method.teachers: an Ensemble has no teacher with a weight above 0"
      )
    if not self.pace > 0:
      raise types.UserError(
        f"method.pace is {self.pace}; expected a positive number"
      )


def _given(batch: types.Batch) -> jax.Array:
  """[B, T] the mask, 0 in rows that a model wrote."""
  mask = batch["student"].mask
  if "log_probs" not in batch.data:
    return mask
  wrote = base.has_targets(base.per_token(batch, "log_probs"))
  return mask * (1 - wrote.reshape(-1, *(1,) * (mask.ndim - 1)))
