# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A sum whose parts pull equally hard.

    w_i = 1 / |g_i|,    g_i the gradient of part i by the student's last layer

A part whose gradient is a hundred times that of another drowns it, and scales
change while a run goes on; these weights follow them.

Paper: Minixhofer et al., 2025, arXiv:2503.20083 (section on several losses).
Fidelity: code.
Departures: weights of parts count, as factors; where all are 1 this is the
authors'. A part without any gradient there keeps its weight, which theirs
multiplies by 1e8. The norms are those of the global batch.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.methods import base
from jdistill.methods.sum import Sum

GRADIENT = "gradient"
_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class GradMag(Sum):
  """`sum_i weight_i * method_i / |g_i|`, with the gradients of each step.

  Costs one more forward pass of student and teachers a step, and for each part
  one more walk over the tokens and a backward pass of one layer. It is the
  method of a run itself, and no part of another. A part that does not reach the
  last layer, such as a loss of earlier layers' states, keeps its weight.

  Attributes:
    power: of the norms; 0 is a plain sum, a control arm by a flag.
    preserve: weights are divided by their sum, so that the gradient has about
      the size of the parts' own.
    last: patterns of names of the student's parameters that count as its last
      layer, such as "head/*"; () takes what the architecture says, which
      decoders do.
  """

  power: float = 1.0
  preserve: bool = False
  last: tuple[str, ...] = ()

  def weights(self, ctx: base.Context) -> Mapping[str, jax.Array]:
    sizes = self._sizes(ctx)
    found = {
      name: jnp.where(
        sizes[name] > 0,
        weight / (sizes[name] + _EPSILON) ** self.power,
        weight,
      )
      for name, weight in super().weights(ctx).items()
    }
    if self.preserve:
      total = jnp.stack(list(found.values())).sum()
      found = {name: weight / total for name, weight in found.items()}
    return found

  def alone(
    self,
    name: str,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    """The loss of one part, whatever its weight."""
    method = self.parts[name].method
    own = dataclasses.replace(ctx, norms=base.within(ctx.norms, name))
    return method.loss(params[name], student, teachers, batch, own)

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    loss = super().loss(params, student, teachers, batch, ctx)
    count = batch[self.needs().views[0]].mask.sum()
    sizes, weights = self._sizes(ctx), self.weights(ctx)
    own = {
      **{base.join(n, "gradient_norm"): v for n, v in sizes.items()},
      **{base.join(n, "weight"): v for n, v in weights.items()},
    }
    found = {
      name: types.Mean(value * count, count) for name, value in own.items()
    }
    return dataclasses.replace(loss, metrics=loss.metrics | found)

  def _sizes(self, ctx: base.Context) -> dict[str, jax.Array]:
    keys = {name: base.join(name, GRADIENT) for name in self.active}
    if missing := [key for key in keys.values() if key not in ctx.norms]:
      raise types.UserError(
        f"GradMag: nobody measured {', '.join(missing)}; it is the method of a "
        "run itself, not a part of a Sum or inside of another method"
      )
    return {name: ctx.norms[key] for name, key in keys.items()}
