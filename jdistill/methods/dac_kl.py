# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""DAC-KL: forward KL on the part of the vocabulary that a gate lets through.

    c_v = mass of the teacher's ids at least as probable as v
    g_v = sigmoid((c_v - l) / s) sigmoid((u - c_v) / s),  1 for the target
    p' = g p / sum(g p),  q' = g q / sum(g q)
    L = mean_t KL(p'_t || q'_t) + guard * max(0, floor - sum(g p))

A student that cannot have all of p learns the part that matters: u cuts the
tail off, l the head. A small network reads (l, u) of each token off the
probabilities of the teacher's `top` ids, and is trained by the same loss; the
guard keeps it from letting nothing through, where the loss would be 0.

Paper: Liu et al., 2024 (multi-granularity semantic revision), arXiv:2407.10068.
Fidelity: reconstructed.
Departures: the form of the network, the soft gate and the guard are jdistill's
own. The network sees the student's probabilities of the teacher's ids. Ids past
the `top` share one c (`losses.mass_gate`), so that no vocabulary is sorted.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class DACKL(base.TokenMethod):
  """Mean over target tokens of the gated forward KL, in nats, and its guard.

  `top` ids of the teacher have a c of their own and are what the network of
  `hidden` units sees. The gate starts out open, from 2 to 98 % of the mass;
  `width` is s. `guard` weighs the mass that is let through below `floor`.
  """

  top: int = 64
  hidden: int = 64
  width: float = 0.02
  guard: float = 1.0
  floor: float = 0.9

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    vocab = min(o.head.vocab_size for o in shapes.values())
    inputs = 2 * min(self.top, vocab)
    kernel = jax.nn.initializers.lecun_normal()(key, (inputs, self.hidden))
    return {
      "inner": {"kernel": kernel, "bias": jnp.zeros(self.hidden)},
      "outer": {
        "kernel": jnp.zeros((self.hidden, 2)),
        "bias": jnp.array([-4.0, 4.0]),
      },
    }

  def _bounds(self, params, student, teacher) -> tuple[jax.Array, jax.Array]:
    """l and u of each token, [C] each."""
    p = jax.nn.softmax(jax.lax.stop_gradient(teacher))
    q = jax.nn.softmax(jax.lax.stop_gradient(student))
    highest, ids = jax.lax.top_k(p, min(self.top, p.shape[-1]))
    seen = [highest, jnp.take_along_axis(q, ids, axis=-1)]
    inner = losses.project(jnp.concatenate(seen, axis=-1), **params["inner"])
    bounds = losses.project(jax.nn.gelu(inner), **params["outer"])
    low, high = jnp.moveaxis(jax.nn.sigmoid(bounds), -1, 0)
    return low, high

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del step
    student, teacher = logits["student"], logits["teacher"]
    low, high = self._bounds(params, student, teacher)
    gate = losses.mass_gate(
      teacher, data["targets"], low, high, top=self.top, width=self.width
    )
    passed = jnp.sum(jax.nn.softmax(teacher) * jnp.exp(gate), axis=-1)
    lacking = jnp.maximum(self.floor - passed, 0)
    return {
      "dac_kl": base.Term(losses.forward_kl(student + gate, teacher + gate)),
      "guard": base.Term(lacking, self.guard),
      "passed": base.Term(passed, scale=0.0),
    }
