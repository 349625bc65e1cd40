# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""ULD: a teacher with another tokenizer, by the shape of its distributions.

    L = mean_t sum_k |sort(q_t)_k - sort(p_t)_k|

q student, p teacher, both sorted descending, the smaller vocabulary filled up
with zeros. Positions are paired by their number from the first learnt token of
a document, as far as both go: nothing says that they are at the same text.
`Sum` adds the paper's cross entropy; its weight of this term is 1.5.

Paper: Boizard et al., 2024, arXiv:2402.12030.
Fidelity: code (of DSKD and tokenkit).
Departures: the mean is over all pairs of positions of the global batch, not
over rows of their means.
"""

import dataclasses
from collections.abc import Mapping

import jax

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class ULD(base.TokenMethod):
  """Mean over paired positions of the sorted L1 distance, no unit.

  `tau` is the temperature of both. The whole vocabularies are sorted, which
  takes longer than the heads.
  """

  tau: float = 1.0

  def needs(self) -> base.Needs:
    return base.Needs(
      views=("student", "teacher"),
      same_vocabulary=False,
      data=("student_chunks", "teacher_chunks"),
    )

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"tokens": self.data(batch)["mask"].sum()}

  def streams(
    self, student: base.Speaker, teachers: base.Teachers, batch: types.Batch
  ) -> dict[str, types.Outputs]:
    index, _ = base.paired_by_place(batch)
    teacher = teachers["teacher"]("teacher").at(index)
    return {"student": student("student"), "teacher": teacher}

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    _, paired = base.paired_by_place(batch)
    return {"mask": batch["student"].mask * paired}

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del data, params, step
    q, p = (
      jax.nn.softmax(logits[name] / self.tau) for name in ("student", "teacher")
    )
    return {"sorted_l1": base.Term(losses.sorted_l1(q, p))}
