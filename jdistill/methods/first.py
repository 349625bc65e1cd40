# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""FIRST: the teacher's top ids, recalibrated before they are taught.

    L = mean_t KL(p~_t || q~_t) over the teacher's `top` ids,
    p~ = softmax(log p / temperature),  q~ = q renormalised

With `other` all other ids are one more on both sides; without, nothing says
how much mass they have together.

The temperature is that at which the teacher is best calibrated on held-out
text: `jdistill cache --calibrate` finds it.

Paper: Shum et al., 2024, arXiv:2408.12168.
Fidelity: paper; the released code takes a softmax of probabilities instead of
their logarithms, and is no reference.
Departures: a mean over target tokens instead of a sum over each text's. The
paper fits the temperature on probabilities of the stored ids alone, as here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class FIRST(base.TokenMethod):
  """Mean over target tokens of the KL to a recalibrated teacher, in nats.

  `recalibrate` is by a "temperature" or by "smoothing", which moves a mass of
  `delta` from the likeliest id to the others alike. A cache that this learns
  from with `other` has the same number of ids, `top`.
  """

  top: int = 5
  recalibrate: Literal["temperature", "smoothing"] = "temperature"
  temperature: float = 1.0
  delta: float = 0.1
  other: bool = False

  def needs(self) -> base.Needs:
    return base.Needs(sparse=("bucket" if self.other else "renormalise_both",))

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del data, params, step
    student, teacher = logits["student"], logits["teacher"]
    if not self.other:
      student, teacher = losses.on_top(
        student, teacher, top=self.top, of="teacher"
      )
    elif teacher.shape[-1] > self.top + 1:  # else the rest is there already
      student, teacher = losses.on_top(
        jax.nn.log_softmax(student),
        jax.nn.log_softmax(teacher),
        top=self.top,
        of="teacher",
        rest="bucket",
      )
    if self.recalibrate == "temperature":
      teacher = teacher / self.temperature
    else:
      teacher = _smoothed(teacher, self.delta)
    return {"forward_kl": base.Term(losses.forward_kl(student, teacher))}


def _smoothed(logits: jax.Array, delta: float) -> jax.Array:
  """Less mass for the likeliest id, the others' share of it alike."""
  probs = jax.nn.softmax(logits)
  there = probs > 0
  first = probs == probs.max(-1, keepdims=True)
  others = jnp.maximum(there.sum(-1, keepdims=True) - 1, 1)
  probs = probs + jnp.where(first, -delta, delta / others)
  return jnp.where(there, jnp.log(jnp.maximum(probs, 1e-6)), -jnp.inf)
