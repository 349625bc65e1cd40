# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""GOLD: a teacher with another tokenizer, chunk by chunk of the same text.

    Q_c(v) = q(v | x) prod_{i in c, not the first} q(x_i | x_<i)
    L = mean_c  w JSD(P_c, Q_c) on the ids that stand for the same
                + (1 - w) sum_k |sort(Q_c)_k - sort(P_c)_k| on all others

q student, P the same of the teacher: of the text's own tokens the mass is that
of the chunk (Bayes), of others it is an approximation. w is the share of the
teacher's ids that are shared, or `shared`. `Sum` adds cross entropy.

Paper: none; TRL's GOLDTrainer, after ULD (Boizard et al., arXiv:2402.12030).
Fidelity: code.
Departures: the mean is over all chunks of the global batch, not over rows of
their means.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base

_LEAST = 1e-8
"""The least probability of a token that a chunk goes on with."""


@dataclasses.dataclass(frozen=True)
class GOLD(base.Method):
  """Mean over chunks of a divergence between masses.

  `beta` is the teacher's share in the JSD, `tau` the temperature of both.
  `shared` None weighs by vocabularies.
  """

  beta: float = 0.5
  tau: float = 1.0
  shared: float | None = None

  def needs(self) -> base.Needs:
    return base.Needs(
      views=("student", "teacher"),
      same_vocabulary=False,
      data=("student_chunks", "teacher_chunks"),
      tables=("same",),
    )

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    tokens = base.chunk_tokens(batch, base.num_chunks(batch))
    return {"chunks": (tokens > 0).sum().astype(jnp.float32)}

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    del params
    own = self._side(student, batch, "student")
    other = self._side(teachers["teacher"], batch, "teacher")
    tokens = base.chunk_tokens(batch, base.num_chunks(batch))
    # What the student's further tokens take part in learning: a stream.
    rest = types.Dense(own["rest"][..., None], types.IdentityHead(1))
    streams = {"student": own["first"], "teacher": other["first"], "rest": rest}
    data = {"real": tokens > 0, "rest": jax.lax.stop_gradient(other["rest"])}
    inputs = {"same": jnp.asarray(student.tables["same"]), "norms": ctx.norms}

    def fn(logits, data, inputs):
      q = self._masses(logits["student"], logits["rest"][..., 0])
      p = self._masses(logits["teacher"], data["rest"])
      matched, sorted_l1, weight = self._parts(q, p, inputs["same"])
      value = weight * matched + (1 - weight) * sorted_l1
      real = data["real"]
      found = {"gold": value, "jsd": matched, "sorted_l1": sorted_l1}
      metrics = {k: (jnp.where(real, v, 0), real * 1.0)
                 for k, v in found.items()}  # fmt: skip
      return jnp.where(real, value, 0) / inputs["norms"]["chunks"], metrics

    total, sums = losses.walk(fn, streams, data, inputs, frozen=("teacher",))
    return types.Loss(total, {k: types.Mean(*v) for k, v in sums.items()})

  def _side(self, speaker: base.Speaker, batch: types.Batch, view: str) -> dict:
    """Outputs at the first token of each chunk, [B, C, D], and the log-mass of
    the further ones, [B, C]."""
    outputs, text = speaker(view), base.text(batch, view, "GOLD")
    num, chunks = base.num_chunks(batch), base.chunks_of(batch, view)
    first = base.first_of_chunks(batch, view, num)

    def values(logits, targets, _):
      return base.log_probs(logits[view] / self.tau, targets)

    own = losses.walk_tokens(
      values,
      {view: outputs.dense},
      text.targets,
      frozen=(view,) if view == "teacher" else (),
    )
    further = (chunks > 0) & ~losses.chunk_starts(chunks)
    own = jnp.maximum(own, jnp.log(_LEAST))
    rest = losses.chunk_sums(jnp.where(further, own, 0), chunks, num=num)
    return {"first": outputs.at(first).dense, "rest": rest}

  def _masses(self, logits: jax.Array, rest: jax.Array) -> jax.Array:
    return jnp.exp(jax.nn.log_softmax(logits / self.tau) + rest[..., None])

  def _parts(self, q: jax.Array, p: jax.Array, same: jax.Array):
    """JSD on shared ids, sorted L1 on others, and the weight of the first."""
    kept = same >= 0
    theirs = jnp.where(kept, same, p.shape[-1])
    there = jnp.where(kept, p.at[..., theirs].get(mode="fill", fill_value=0), 0)
    matched = losses.jsd_of_masses(jnp.where(kept, q, 0), there, beta=self.beta)
    taken = jnp.zeros(p.shape[-1], bool).at[theirs].set(True, mode="drop")
    sorted_l1 = losses.sorted_l1(jnp.where(kept, 0, q), jnp.where(taken, 0, p))
    weight = taken.mean() if self.shared is None else self.shared
    return matched, sorted_l1, weight
