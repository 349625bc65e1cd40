# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""KD with tokens weighed by what the teacher, or both, say of them.

    L = mean_t w_t D(p_t, q_t),  w_t = f_t / mean_t f_t, without gradient

The mean is over all target tokens of the global batch, so that neither the
size of the loss nor a token's weight depends on microbatches or devices.

Paper: none; weights of this kind are part of many (entropy, confidence or
correctness of the teacher).
Fidelity: reconstructed.
Departures: none.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax

from jdistill import losses, types
from jdistill.methods import base
from jdistill.methods.kd import KD


@dataclasses.dataclass(frozen=True)
class WeightedKD(base.TokenMethod):
  """Weighted mean over target tokens of a divergence to the teacher.

  `weight` is what tokens are weighed by: of the teacher, the `entropy`,
  `certainty` (1 - entropy, as a share of its maximum), `target_prob`, or
  whether its best guess is `correct`; `kl` is the KL itself. `kd` is what is
  weighed.
  """

  weight: Literal["entropy", "certainty", "target_prob", "correct", "kl"] = (
    "entropy"
  )
  kd: KD = dataclasses.field(default_factory=KD)

  @property
  def _name(self) -> str:
    return f"token_weights/{self.weight}"

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    """Scores [*B] of all tokens, not yet normalised."""
    del params
    view = self.view()
    outputs = {"student": student(view), "teacher": teachers["teacher"](view)}
    streams = base.same_ids(outputs)
    if self.weight != "kl":
      del streams["student"]

    def scores(logits, targets):
      teacher = logits["teacher"]
      return losses.token_scores(
        logits.get("student", teacher), teacher, targets, kind=self.weight
      )

    return base.look(scores, streams, batch[view].targets)

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    del keys
    weights = losses.mean_one(arrays, batch[self.view()].mask)
    data = {**batch.data, self._name: weights}
    return dataclasses.replace(batch, data=data)

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {**super().data(batch), "weights": batch.data[self._name]}

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    terms = self.kd.terms(logits, data, params, step)
    return {
      name: dataclasses.replace(term, weight=data["weights"])
      for name, term in terms.items()
    }
