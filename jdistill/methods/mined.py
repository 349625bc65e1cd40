# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""MinED: a teacher with another tokenizer, its ids taken for the nearest ones.

    L = mean_t  KL(p_j[near] || q_t)    where one token of each is a chunk
                -log q_t(y_t)           in chunks of several tokens

q student, p teacher at the same chunk j; `near` is, for each id of the student,
the teacher's id with the fewest edits between the two strings.

Paper: Wan et al., 2024 (FuseLLM), arXiv:2401.10491, as a baseline in
Minixhofer et al., 2025, arXiv:2503.20083.
Fidelity: code (of tokenkit).
Departures: the code compares what is said behind a pair of tokens, here it is
what is said of them. Edits are of bytes, and of ids equally near the smallest
is taken. Targets in no chunk do not count.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class MinED(base.TokenMethod):
  """Mean over targets in chunks, in nats; `tau` is the temperature of both."""

  tau: float = 1.0

  def needs(self) -> base.Needs:
    return base.Needs(
      views=("student", "teacher"),
      same_vocabulary=False,
      data=("student_chunks", "teacher_chunks"),
      tables=("nearest",),
    )

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"tokens": self.data(batch)["mask"].sum()}

  def streams(
    self, student: base.Speaker, teachers: base.Teachers, batch: types.Batch
  ) -> dict[str, types.Outputs]:
    num = base.num_chunks(batch)
    first = base.first_of_chunks(batch, "teacher", num)
    index = losses.at_chunks(first, base.chunks_of(batch, "student"))
    teacher = teachers["teacher"]("teacher").at(index)
    head = types.chosen(teacher.head, jnp.asarray(student.tables["nearest"]))
    return {"student": student("student"), "teacher": teacher.with_head(head)}

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    num = base.num_chunks(batch)
    chunks = base.chunks_of(batch, "student")
    one = losses.chunk_sums((chunks > 0).astype(jnp.int32), chunks, num=num)
    other = base.chunk_tokens(batch, num)
    view = base.text(batch, "student", "MinED")
    real = losses.at_chunks(other > 0, chunks)
    return {
      "targets": view.targets,
      "mask": jnp.where(real, view.mask, 0),
      "single": losses.at_chunks((one == 1) & (other == 1), chunks),
    }

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params, step
    kl = losses.forward_kl(logits["student"], logits["teacher"], tau=self.tau)
    ce = losses.cross_entropy(logits["student"] / self.tau, data["targets"])
    single = data["single"]
    return {
      "mined": base.Term(jnp.where(single, kl, ce)),
      "single": base.Term(single.astype(kl.dtype), scale=0.0),
    }
