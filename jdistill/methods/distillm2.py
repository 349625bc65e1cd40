# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""DistiLLM-2: forward on the teacher's text, reverse on the student's.

    L = (2 - beta) mean_i mean_t KL(p || a p + (1 - a) q)   on teacher_text
        + beta mean_i mean_t KL(q || (1 - b) p + b q)       on student

Each answer i weighs the same, however long. Every row of the batch has two
views: "teacher_text", the prompt with an answer that the teacher wrote, and
"student", with one that the student wrote. They may be of different lengths.

Paper: Ko et al., 2025, arXiv:2503.07067.
Fidelity: code.
Departures: the skews a and b stay what they are; the code can adapt them to
each pair, and does not by default. As in the code, and unlike in DistiLLM, no
gradient flows through q in the mixture of the reverse part. Documents that
share a row are answers of their own.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jdistill import losses, schedules, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class _Side(base.TokenMethod):
  """One of the two texts."""

  text: str
  skew: float
  beta: float | schedules.Schedule

  def view(self) -> str:
    return self.text

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"answers": self._weights(batch).sum()}

  def _weights(self, batch: types.Batch) -> jax.Array:
    """One over the number of targets of the answer, at each of them."""
    view = batch[self.text]
    if not isinstance(view, types.Tokens):
      return view.mask
    _, total = losses.place_in_document(view.mask, view.segment_ids)
    return view.mask / jnp.maximum(total, 1)

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {**super().data(batch), "weights": self._weights(batch)}

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params
    beta = schedules.at(self.beta, step)
    pair = logits["student"], logits["teacher"]
    if self.text == "teacher_text":
      name, scale = "skew_forward_kl", 2 - beta
      value = losses.skew_forward_kl(*pair, skew=self.skew)
    else:
      name, scale = "skew_reverse_kl", beta
      value = losses.skew_reverse_kl(*pair, skew=self.skew, mixture="held")
    return {name: base.Term(value, scale, data["weights"], "answers")}


@dataclasses.dataclass(frozen=True)
class DistiLLM2(base.Method):
  """Skewed KLs on pairs of answers, mean over answers, in nats.

  `beta` moves weight from the teacher's answers to the student's; the authors
  keep it at 1, or let it rise to 1.5 over the first half of the run
  (`schedules.Linear(1.0, 1.5, steps / 2)`).
  """

  beta: float | schedules.Schedule = 1.0
  forward_skew: float = 0.1
  reverse_skew: float = 0.1

  def needs(self) -> base.Needs:
    return base.Needs(views=("student", "teacher_text"))

  @property
  def _sides(self) -> dict[str, _Side]:
    return {
      "teacher_text": _Side("teacher_text", self.forward_skew, self.beta),
      "student_text": _Side("student", self.reverse_skew, self.beta),
    }

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {
      f"{name}/answers": side.norms(batch)["answers"]
      for name, side in self._sides.items()
    }

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    del params
    found = [
      base.walk_methods(
        {name: (side, 1.0)}, {name: {}}, student, teachers, batch, ctx
      )
      for name, side in self._sides.items()
    ]
    total = found[0].total + found[1].total
    return types.Loss(total, found[0].metrics | found[1].metrics)
