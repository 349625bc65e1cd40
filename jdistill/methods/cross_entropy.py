# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Cross entropy with the data's own tokens or labels: no teacher.

    L = mean_t -log q(y_t)

Paper: none; maximum likelihood.
Fidelity: reconstructed.
Departures: none.
"""

import dataclasses
from collections.abc import Mapping

import jax

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class CrossEntropy(base.TokenMethod):
  """Mean over target tokens of `-log q(target)`, in nats."""

  def needs(self) -> base.Needs:
    return base.Needs(teachers=(), same_vocabulary=False)

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params, step
    value = losses.cross_entropy(logits["student"], data["targets"])
    return {"ce": base.Term(value)}
