# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""DSKD with cross-model attention: both in the space of each, aligned by it.

    A = softmax(Q(e_S) K(e_T)^T / sqrt(2 D_T)),  over the teacher's positions
    h_t2s = A P(h_T + e_T),  z_t2s = sg(W_S) h_t2s
    h_s2t = A'^T P'(h_S),    z_s2t = sg(W_T) h_s2t
    L = CE(z_t2s, y) + [t2s right] D(sg(z_t2s), z_S) + KL(p || z_s2t)

e are embeddings of a token and of the one that follows, h final hidden states,
W heads, P, P' and Q projectors that are trained; A' is the same scores
normalised over the student's positions. Attention is within a document and over
all of it. `Sum` adds cross entropy, both at weight 0.5.

Paper: Zhang et al., 2024, arXiv:2406.17328.
Fidelity: code (of DSKD and tokenkit).
Departures: the teacher's embeddings and states are divided by the standard
deviation of their row, not of the microbatch (the student's by none, as in the
code). The second term is divided by all targets, not by those that t2s gets
right. A document's last target, which is no input and has no embedding there,
does not count.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base

EMBED = "embed"


@dataclasses.dataclass(frozen=True)
class DSKD(base.Method):
  """Sum of the three terms, each a mean over targets, in nats.

  `divergence` is D, `skew` its share of the other distribution where it has
  one, `tau` the temperature of D and of the last term.
  """

  divergence: Literal["forward_kl", "reverse_kl", "skew_reverse_kl"] = (
    "skew_reverse_kl"
  )
  skew: float = 0.1
  tau: float = 2.0

  def needs(self) -> base.Needs:
    return base.Needs(
      views=("student", "teacher"),
      same_vocabulary=False,
      data=("student_chunks", "teacher_chunks"),
    )

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    return {"student": (EMBED,), "teacher": (EMBED,)}

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    """Kernels and biases of the projectors `query`, `t2s` and `s2t`."""
    own, other = (
      shapes[name].hidden.shape[-1] for name in ("student", "teacher")
    )
    sizes = {
      "query": (2 * own, 2 * other),
      "t2s": (other, own),
      "s2t": (own, other),
    }
    draw = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, len(sizes))
    return {
      name: {"kernel": draw(k, size, jnp.float32), "bias": jnp.zeros(size[1])}
      for k, (name, size) in zip(keys, sizes.items(), strict=True)
    }

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {
      view: _counted(batch, view)[0].sum() for view in ("student", "teacher")
    }

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    own = student("student", (EMBED,))
    other = teachers["teacher"]("teacher", (EMBED,))
    t2s, s2t = _across(params, own, other, batch)
    frozen = jax.lax.stop_gradient(own.head)
    first = self._in_students_space(
      {"student": own.dense, "t2s": types.Dense(t2s, frozen)}, batch, ctx
    )
    second = self._in_teachers_space(
      {"s2t": types.Dense(s2t, jax.lax.stop_gradient(other.head)),
       "teacher": other.dense}, batch, ctx,
    )  # fmt: skip
    metrics = {k: types.Mean(*v) for k, v in {**first[1], **second[1]}.items()}
    return types.Loss(first[0] + second[0], metrics)

  def _in_students_space(self, streams, batch: types.Batch, ctx: base.Context):
    view = base.text(batch, "student", "DSKD")
    data = {"targets": view.targets, "mask": _counted(batch, "student")[0]}

    def fn(logits, data, norms):
      guess = logits["t2s"]
      ce = losses.cross_entropy(guess, data["targets"])
      right = (guess.argmax(-1) == data["targets"]).astype(ce.dtype)
      kd = self._divergence(logits["student"], jax.lax.stop_gradient(guess))
      mask = data["mask"]
      value = jnp.where(mask != 0, (ce + right * kd) * mask, 0)
      found = {"t2s_ce": ce, "t2s": right * kd, "t2s_right": right}
      metrics = {k: (jnp.where(mask != 0, v * mask, 0), mask)
                 for k, v in found.items()}  # fmt: skip
      return value / norms["student"], metrics

    return losses.walk(fn, streams, data, ctx.norms)

  def _in_teachers_space(self, streams, batch: types.Batch, ctx: base.Context):
    mask = _counted(batch, "teacher")[0]

    def fn(logits, mask, norms):
      kl = losses.forward_kl(logits["s2t"], logits["teacher"], tau=self.tau)
      value = jnp.where(mask != 0, kl * mask, 0)
      return value / norms["teacher"], {"s2t": (value, mask)}

    return losses.walk(fn, streams, mask, ctx.norms, frozen=("teacher",))

  def _divergence(self, student: jax.Array, teacher: jax.Array) -> jax.Array:
    if self.divergence == "skew_reverse_kl":
      return losses.skew_reverse_kl(
        student, teacher, skew=self.skew, tau=self.tau
      )
    if self.divergence == "reverse_kl":
      return losses.reverse_kl(student, teacher, tau=self.tau)
    return losses.forward_kl(student, teacher, tau=self.tau)


def _across(
  params: types.PyTree,
  own: types.Outputs,
  other: types.Outputs,
  batch: types.Batch,
) -> tuple[jax.Array, jax.Array]:
  """Each one's hidden states as the other's positions see them."""
  (_, segments), (_, theirs) = (
    _counted(batch, view) for view in ("student", "teacher")
  )
  own_pair, _ = _embeddings(own)
  pair, target = (_unit(x, theirs) for x in _embeddings(other))
  query = losses.project(own_pair, **params["query"])
  scores = jnp.einsum("bsd,brd->bsr", query, pair)
  scores = scores / jnp.sqrt(2.0 * other.hidden.shape[-1])
  # Within a document; what does not count sees and is seen by nobody.
  near = (segments[:, :, None] == theirs[:, None, :]) & (
    segments[:, :, None] > 0
  )
  state = _unit(other.hidden, theirs) + target
  told = losses.project(jax.lax.stop_gradient(state), **params["t2s"])
  t2s = _attend(scores, near, told)
  said = losses.project(own.hidden, **params["s2t"])
  s2t = _attend(scores.swapaxes(1, 2), near.swapaxes(1, 2), said)
  return t2s, s2t


def _counted(batch: types.Batch, view: str) -> tuple[jax.Array, jax.Array]:
  """[B, T] the mask, 0 where the text does not go on, and the documents of the
  positions that have a token before them and one behind, else 0."""
  found = base.text(batch, view, "DSKD")
  after = jnp.pad(found.segment_ids[:, 1:], ((0, 0), (0, 1)))
  goes_on = (found.segment_ids == after) & (after > 0)
  segments = jnp.where(goes_on, found.segment_ids, 0)
  return jnp.where(goes_on, found.mask, 0), segments


def _embeddings(outputs: types.Outputs) -> tuple[jax.Array, jax.Array]:
  """Of each token beside the next one's, [B, T, 2 D], and of the next one."""
  embed = outputs.features[EMBED]
  after = jnp.pad(embed[:, 1:], ((0, 0), (0, 1), (0, 0)))
  return jnp.concatenate([embed, after], axis=-1), after


def _unit(states: jax.Array, segments: jax.Array) -> jax.Array:
  """States over the standard deviation of those of their row that count."""
  wide = states.astype(jnp.promote_types(states.dtype, jnp.float32))
  real = (segments > 0)[..., None]
  wide = jnp.where(real, wide, 0)
  count = jnp.maximum(real.sum((1, 2), keepdims=True), 1) * states.shape[-1]
  mean = wide.sum((1, 2), keepdims=True) / count
  square = jnp.where(real, (wide - mean) ** 2, 0).sum((1, 2), keepdims=True)
  return wide / jnp.sqrt(square / count + 1e-12)


def _attend(scores: jax.Array, near: jax.Array, values: jax.Array) -> jax.Array:
  """Means of values [B, R, D] by scores [B, S, R]; 0 where nothing is near."""
  least = jnp.finfo(scores.dtype).min
  weights = jax.nn.softmax(jnp.where(near, scores, least), axis=-1)
  return jnp.einsum("bsr,brd->bsd", jnp.where(near, weights, 0), values)
