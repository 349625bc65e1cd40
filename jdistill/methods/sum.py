# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A weighted sum of methods, itself a method."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp

from jdistill import schedules, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class Part:
  """One method of a sum and its weight."""

  method: base.Method
  weight: float | schedules.Schedule = 1.0


@dataclasses.dataclass(frozen=True)
class Sum(base.Method):
  """`sum_i weight_i * method_i`, e.g. KD beside cross entropy.

  Parts that look at one token at a time share a single walk over the tokens,
  so the logits are computed once however many parts there are. Names of the
  parts prefix the names of their metrics: `kd/kl`. A part whose weight is the
  number 0 is left out, with the teachers that only it needs: a control arm by
  a flag.
  """

  parts: dict[str, Part]

  @property
  def active(self) -> dict[str, Part]:
    """Parts that count.

    Raises: UserError if there is none.
    """
    found = {
      name: part
      for name, part in self.parts.items()
      if isinstance(part.weight, schedules.Schedule) or part.weight != 0
    }
    if not found:
      raise types.UserError(
        f"method: every part of the sum ({', '.join(self.parts) or 'none'}) "
        "has weight 0, so there is nothing to learn"
      )
    return found

  @property
  def batch_coupled(self) -> bool:  # pyrefly: ignore[bad-override]
    return any(p.method.batch_coupled for p in self.active.values())

  def needs(self) -> base.Needs:
    needs = [p.method.needs() for p in self.active.values()]
    return base.Needs(
      views=_union(n.views for n in needs),
      teachers=_union(n.teachers for n in needs),
      same_vocabulary=any(n.same_vocabulary and n.teachers for n in needs),
      data=_union(n.data for n in needs),
      sparse=_common([n.sparse for n in needs if n.teachers]),
      tables=_union(n.tables for n in needs),
      domains=min(
        (n.domains for n in needs if n.domains is not None), default=None
      ),
    )

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for part in self.active.values():
      for name, features in part.method.wants().items():
        found[name] = _union((found.get(name, ()), features))
    return found

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    # A key for each, so that a part left out changes no other's draw.
    keys = dict(
      zip(self.parts, jax.random.split(key, len(self.parts)), strict=True)
    )
    return {
      name: part.method.init(keys[name], shapes)
      for name, part in self.active.items()
    }

  def weights(self, ctx: base.Context) -> Mapping[str, jax.Array]:
    """The share of each active part in the loss of a step, [] each."""
    return {
      name: jnp.asarray(schedules.at(part.weight, ctx.step))
      for name, part in self.active.items()
    }

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {
      base.join(name, norm): value
      for name, part in self.active.items()
      for norm, value in part.method.norms(batch).items()
    }

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    found = {
      name: part.method.survey(params[name], student, teachers, batch)
      for name, part in self.active.items()
    }
    return None if all(v is None for v in found.values()) else found

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    for name, part in self.active.items():
      own = None if arrays is None else arrays[name]
      batch = part.method.prepare(own, batch, keys)
    return batch

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    active, weights = self.active, self.weights(ctx)
    walks: dict[str, dict[str, tuple[base.TokenMethod, jax.Array]]] = {}
    total, metrics = jnp.zeros(()), {}
    for name, part in active.items():
      method = part.method
      if isinstance(method, base.TokenMethod):
        walks.setdefault(method.view(), {})[name] = (method, weights[name])
        continue
      own = dataclasses.replace(ctx, norms=base.within(ctx.norms, name))
      loss = method.loss(params[name], student, teachers, batch, own)
      total = total + weights[name] * loss.total
      metrics |= {base.join(name, k): v for k, v in loss.metrics.items()}
    for parts in walks.values():
      own_params = {name: params[name] for name in parts}
      loss = base.walk_methods(parts, own_params, student, teachers, batch, ctx)
      total, metrics = total + loss.total, metrics | loss.metrics
    return types.Loss(total, metrics)


def _union(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
  return tuple(dict.fromkeys(name for group in groups for name in group))


def _common(groups: Sequence[tuple[types.Rest, ...]]) -> tuple[types.Rest, ...]:
  first, *others = groups or [()]
  return tuple(x for x in first if all(x in group for group in others))
