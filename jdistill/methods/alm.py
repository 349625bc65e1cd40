# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""ALM: a teacher with another tokenizer, by the likelihood of the same text.

    a_c = sum_{i in c} log p(x_i | x_<i) + log p(boundary | x_<=c),  b_c alike
    L = mean_c D(exp(a_c / tau), exp(b_c / tau))

c are chunks of text at whose ends both tokenizers have an end of a token, a
from the teacher and b from the student; D is a divergence of two events, the
chunk and its absence. A model may have meant more than the chunk by its last
token ("for" of "forest"): the last term asks that a space, or whatever no token
goes beyond, follows. Where the teacher gives that no more than `merge_above`,
the chunk is merged with the next.

Paper: Minixhofer et al., 2025, arXiv:2503.20083.
Fidelity: code.
Departures: the mean is over the merged chunks of the global batch; the code
divides by a microbatch's, whose number it merges twice. Weights other than
"chunk" make a weighted mean. The end of a document is a boundary, as nothing is
read behind it, and chunks of two documents are never merged.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.losses import chunks as chunks_lib
from jdistill.methods import base

KEPT = "alm"


@dataclasses.dataclass(frozen=True)
class ALM(base.Method):
  """Mean over chunks of a divergence between likelihoods.

  `difference` and `tau` are those of `losses.likelihood_difference`, `alpha`
  its order of "renyi". `ending` "boundary" has the term of what follows a
  chunk; "any" leaves it out. `merge_above` merges chunks that the teacher ends
  there with no more than this probability; None merges none. A chunk weighs 1,
  or as the number of its teacher's tokens says.
  """

  difference: chunks_lib.Difference = "binary_ce"
  tau: float = 100.0
  alpha: float = 2.0
  ending: Literal["boundary", "any"] = "boundary"
  merge_above: float | None = 0.1
  weight: Literal["chunk", "token", "log1p_token"] = "chunk"

  def needs(self) -> base.Needs:
    return base.Needs(
      views=("student", "teacher"),
      same_vocabulary=False,
      data=("student_chunks", "teacher_chunks"),
      tables=("boundary",),
    )

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    """What the teacher says of each group of chunks, and which these are."""
    del params, student
    num = base.num_chunks(batch)
    found = _likelihoods(teachers["teacher"], batch, "teacher", frozen=True)
    counts = base.chunk_tokens(batch, num)
    real = counts > 0
    chunks = base.chunks_of(batch, "teacher")
    sums = losses.chunk_sums(found["own"], chunks, num=num)
    ends = losses.chunk_ends(chunks)
    follows = jnp.where(ends, found["boundary"], 0)
    boundary = losses.chunk_sums(follows, chunks, num=num)
    groups = jnp.arange(1, num + 1)
    groups = jnp.where(real, jnp.broadcast_to(groups, real.shape), 0)
    if self.merge_above is not None:
      closes = real & (jnp.exp(boundary) > self.merge_above)
      # Chunks of different documents are never one.
      segment = losses.chunk_sums(
        jnp.where(ends, found["segments"], 0), chunks, num=num
      )
      after = jnp.pad(segment[:, 1:], ((0, 0), (0, 1)))
      closes |= real & (segment != after)
      groups = jnp.where(real, losses.merge_chunks(closes), 0)
    last = losses.chunk_ends(groups)
    total = losses.chunk_sums(jnp.minimum(sums, 0), groups, num=num)
    if self.ending == "boundary":
      total += losses.chunk_sums(jnp.where(last, boundary, 0), groups, num=num)
    return {
      "groups": groups,
      "teacher": total,
      "tokens": losses.chunk_sums(counts, groups, num=num),
    }

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    del keys
    own = {f"{KEPT}/{k}": v for k, v in arrays.items()}
    return dataclasses.replace(batch, data={**batch.data, **own})

  def _weights(self, batch: types.Batch) -> jax.Array:
    """[B, C] of each group of chunks; 0 where there is none."""
    tokens = batch.data[f"{KEPT}/tokens"].astype(jnp.float32)
    return {
      "chunk": (tokens > 0).astype(tokens.dtype),
      "token": tokens,
      "log1p_token": jnp.log1p(tokens),
    }[self.weight]

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"chunks": self._weights(batch).sum()}

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    del params, teachers
    num, groups = base.num_chunks(batch), batch.data[f"{KEPT}/groups"]
    found = _likelihoods(student, batch, "student")
    chunks = base.chunks_of(batch, "student")
    sums = losses.chunk_sums(found["own"], chunks, num=num)
    total = losses.chunk_sums(jnp.minimum(sums, 0), groups, num=num)
    if self.ending == "boundary":
      ends = jnp.where(losses.chunk_ends(chunks), found["boundary"], 0)
      boundary = losses.chunk_sums(ends, chunks, num=num)
      last = losses.chunk_ends(groups)
      total += losses.chunk_sums(jnp.where(last, boundary, 0), groups, num=num)
    weight, teacher = self._weights(batch), batch.data[f"{KEPT}/teacher"]
    # Groups that do not exist are equal, and far from where slopes are steep.
    here = weight > 0
    value = losses.likelihood_difference(
      jnp.where(here, total, -1.0),
      jnp.where(here, teacher, -1.0),
      kind=self.difference,
      tau=self.tau,
      alpha=self.alpha,
    )
    value = jnp.where(here, value * weight, 0).sum()
    gap = jnp.where(here, jnp.abs(total - teacher), 0).sum()
    metrics = {
      self.difference: types.Mean(value, weight.sum()),
      "gap": types.Mean(gap, here.sum()),
      "chunk_tokens": types.Mean(
        batch.data[f"{KEPT}/tokens"].sum().astype(jnp.float32), here.sum()
      ),
    }
    metrics = jax.lax.stop_gradient(metrics)
    return types.Loss(value / ctx.norms["chunks"], metrics)


def _likelihoods(
  speaker: base.Speaker, batch: types.Batch, view: str, *, frozen: bool = False
) -> dict[str, jax.Array]:
  """Of a view's targets, [B, T]: `own` log-probabilities, `boundary`: that a
  boundary follows, 0 where the text does not go on; and their `segments`."""
  outputs, text = speaker(view), base.text(batch, view, "ALM")
  table = jnp.asarray(speaker.tables["boundary"])

  def values(logits, targets, table):
    logits = logits[view]
    total = jax.nn.logsumexp(logits, axis=-1)
    kept = jnp.where(table, logits, -jnp.inf)
    return {
      "own": base.log_probs(logits, targets),
      "boundary": jax.nn.logsumexp(kept, axis=-1) - total,
    }

  found = losses.walk_tokens(
    values,
    {view: outputs.dense},
    text.targets,
    table,
    frozen=(view,) if frozen else (),
  )
  segments = text.segment_ids
  goes_on = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  after = jnp.where(goes_on, jnp.minimum(found["boundary"][:, 1:], 0), 0)
  boundary = jnp.pad(after, ((0, 0), (0, 1)))
  return {**found, "boundary": boundary, "segments": segments}
