# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation: the teacher is told more than the student.

    L = mean_t min(q / q_old, clip) D(p(. | more, y_<t), q(. | y_<t))

y is an answer that the student wrote from the prompt. The teacher (the same
network: as it was, an average of it, or as it is) reads that answer after a
longer prompt, with a demonstration or feedback in it: the view "privileged".
`batch.data["teacher_index"]` [B, T] int32 says at which of its positions the
target of each position of the view "student" is predicted.

    full:         D over the vocabulary
    top, bucket:  D over the student's most probable ids, renormalised or with
                  the others' mass as one more
    sampled:      D = (log p(y_t) - log q(y_t))^2 / 2, with the gradient of
                  reverse KL

SDPO is the same with a teacher that has something to add for some rows only (a
successful sibling, feedback): `rows` names the array [B] that is 1 there, which
is "told" where `rollout.Reprompted` lays out what the teacher reads. `(1 - w)
GRPO + w SDPO` is a `Sum`.

Paper: Shenfeld et al., 2026 (SDFT), arXiv:2601.19897; Hübotter et al., 2026
(SDPO), arXiv:2601.20802.
Fidelity: code (TRL's SDFT and the authors' SDPO, which agree).
Departures: "sampled" has their gradient and another value. Ids as probable as
the last of the top are kept too. The bucket adds up what is in it, where they
take 1 less the rest. Their cap on a token's divergence is left out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class SelfDistillation(base.TokenMethod):
  """Mean over target tokens of a divergence to a teacher that knows more.

  `divergence` is JSD with the share `beta` of the teacher, or a KL; it is
  reverse KL for the support "sampled". `clip` is the most that a token of an
  older student weighs; None weighs all the same. The first `skip` targets of
  each answer do not count.
  """

  divergence: Literal["jsd", "forward_kl", "reverse_kl"] = "jsd"
  beta: float = 0.5
  support: Literal["full", "top", "bucket", "sampled"] = "bucket"
  top: int = 100
  clip: float | None = 2.0
  skip: int = 0
  rows: str | None = None

  def needs(self) -> base.Needs:
    arrays = ("teacher_index",)
    arrays += () if self.clip is None else ("log_probs",)
    arrays += () if self.rows is None else (self.rows,)
    return base.Needs(views=("student", "privileged"), data=arrays)

  def _weights(self, batch: types.Batch) -> jax.Array:
    """[B, T] the mask, less what is skipped."""
    view = base.text(batch, "student", "SelfDistillation")
    weights = view.mask
    if self.skip:
      place, _ = losses.place_in_document(view.mask, view.segment_ids)
      weights = jnp.where(place > self.skip, weights, 0)
    if self.rows is not None:
      weights = weights * batch.data[self.rows].astype(weights.dtype)[:, None]
    return weights

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"tokens": self._weights(batch).sum()}

  def streams(
    self,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> dict[str, types.Outputs]:
    index = base.per_token(batch, "teacher_index")
    teacher = teachers["teacher"]("privileged").at(index)
    return {"student": student("student"), "teacher": teacher}

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    found = {**super().data(batch), "weights": self._weights(batch)}
    if self.clip is not None:
      found["log_probs"] = base.per_token(batch, "log_probs")
    return found

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params, step
    name = "k2" if self.support == "sampled" else self.divergence
    value = self._divergence(logits["student"], logits["teacher"], data)
    if self.clip is not None:
      q = base.log_probs(logits["student"], data["targets"])
      old = data["log_probs"]
      ratio = losses.truncated_weights(q, old, limit=self.clip)
      value = value * jnp.where(old == 0, 1, ratio)  # 0: no model wrote it
    return {name: base.Term(value, weight=data["weights"])}

  def _divergence(self, student, teacher, data) -> jax.Array:
    if self.support == "sampled":
      q, p = (base.log_probs(x, data["targets"]) for x in (student, teacher))
      return losses.k2(q, p)
    if self.support != "full":
      rest = "bucket" if self.support == "bucket" else "drop"
      student, teacher = losses.on_top(
        student, teacher, top=self.top, rest=rest
      )
    if self.divergence == "jsd":
      return losses.jsd(student, teacher, beta=self.beta)
    if self.divergence == "forward_kl":
      return losses.forward_kl(student, teacher)
    return losses.reverse_kl(student, teacher)
