# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""AdaSPEC: a draft model learns the tokens that a reference has shown to learn.

    gain_t = KL(p_t || q_t) - KL(p_t || ref_t), without gradient
    L = mean of KL(p_t || q_t) over the share of tokens with the largest gain

The reference is a draft of the same size that was distilled from the target
before: where it does no better than the student does now, the token is too hard
for a model of that size. First train it (`KD`), then give it as the teacher
named "reference".

Paper: Hu et al., 2025, arXiv:2510.19779.
Fidelity: code.
Departures: the quantile is over the target tokens of the global batch, not of a
microbatch, and the mean over those that are kept (under Hugging Face's count of
items the code divides by all). Tokens that equal the last one kept are kept
too. The arms other than "gain" are controls.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax

from jdistill import losses, types
from jdistill.methods import base

KEPT = "adaspec/kept"


@dataclasses.dataclass(frozen=True)
class AdaSPEC(base.TokenMethod):
  """Mean of forward KL over chosen tokens, in nats.

  `fraction` of the global batch's tokens are kept: those of the largest or
  `lowest` gain, of the `largest_loss` of the student, or drawn at `random`,
  anew at each step. The metric `all_tokens` is the mean over all of them.
  """

  fraction: float = 0.4
  keep: Literal["gain", "lowest", "largest_loss", "random"] = "gain"

  def needs(self) -> base.Needs:
    reference = ("reference",) if self.keep in ("gain", "lowest") else ()
    return base.Needs(teachers=("teacher", *reference))

  @property
  def _name(self) -> str:
    return f"{KEPT}/{self.keep}"

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    """What tokens are ordered by, [*B]; None where that is chance."""
    del params
    if self.keep == "random":
      return None
    view = self.view()
    outputs = {k: teachers[k](view) for k in self.needs().teachers}
    streams = base.same_ids({"student": student(view), **outputs})

    def scores(logits, data):
      del data
      value = losses.forward_kl(logits["student"], logits["teacher"])
      if "reference" in logits:
        value -= losses.forward_kl(logits["reference"], logits["teacher"])
      return -value if self.keep == "lowest" else value

    return base.look(scores, streams, ())

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    mask = batch[self.view()].mask
    if self.keep == "random":
      draw = lambda key: jax.random.uniform(key, mask.shape[1:])  # noqa: E731
      arrays = jax.vmap(draw)(keys)
    kept = losses.top_fraction(arrays, mask, fraction=self.fraction)
    return dataclasses.replace(batch, data={**batch.data, self._name: kept})

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"tokens": batch.data[self._name].sum()}

  def streams(
    self,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> dict[str, types.Outputs]:
    del batch
    view = self.view()
    return {"student": student(view), "teacher": teachers["teacher"](view)}

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {**super().data(batch), "kept": batch.data[self._name]}

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params, step
    value = losses.forward_kl(logits["student"], logits["teacher"])
    return {
      "forward_kl": base.Term(value, weight=data["kept"]),
      "all_tokens": base.Term(value, scale=0.0),
    }
