# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters beside frozen kernels, and kernels that took them in.

LoRA (Hu et al., 2021, arXiv:2106.09685): y = x W + alpha / rank (x A) B, where
A is drawn and B starts at zero. The pair lies beside the kernel in the tree:

    segment_0/attention/q/lora_a [L, D, rank]
    segment_0/attention/q/lora_b [L, rank, H, Dh]

Own lines instead of qwix's LoRA: that makes its parameters while the module
runs, inside a patched `dot_general`. In a layer scan there is no module to keep
them, and `@` on one layer traces on a level of its own, where qwix 0.1.8 may
not draw them. It works on modules of one's own, see `jdistill.models.adapters`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import paths, types

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
"""The products of a decoder layer."""

PAIR = ("lora_a", "lora_b")


@dataclasses.dataclass(frozen=True)
class LowRank:
  """Which products of a decoder have adapters, and what else is trained.

  `also` are patterns of paths such as `*norm/scale` or `embedding/*`.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...] = TARGETS
  also: tuple[str, ...] = ()

  def __post_init__(self):
    if self.rank < 1:
      raise types.UserError(
        f"adapters: rank is {self.rank}; expected at least 1"
      )
    unknown = [name for name in self.targets if name not in TARGETS]
    if unknown or not self.targets:
      found = repr(unknown[0]) if unknown else "empty"
      raise types.UserError(
        f"adapters: targets: {found}; the products of a layer are "
        f"{', '.join(TARGETS)}"
      )

  @property
  def scale(self) -> float:
    """What multiplies the product of the pair."""
    return self.alpha / self.rank


def trainable(low_rank: LowRank, shapes: types.PyTree) -> types.PyTree:
  """A bool for each parameter: the pairs, and what `also` names.

  Raises: UserError for a pattern without a parameter.
  """
  names = paths.names(shapes)
  also = paths.matching("also", low_rank.also, names)
  moves = [n.endswith(PAIR) or a for n, a in zip(names, also, strict=True)]
  return jax.tree.unflatten(jax.tree.structure(shapes), moves)


def beside(drawn: types.PyTree, base: types.PyTree) -> types.PyTree:
  """The parameters of the base, with the pairs that were drawn for it."""
  if not isinstance(drawn, dict):
    return base
  return {
    key: beside(child, base[key]) if key in base else child
    for key, child in drawn.items()
  }


def product(a: jax.Array, b: jax.Array, ndim: int) -> jax.Array:
  """A times B, an array of so many axes, for each of those that are stacked."""
  times = lambda a, b: jnp.tensordot(a, b, 1)  # noqa: E731
  for _ in range(a.ndim + b.ndim - 2 - ndim):
    times = jax.vmap(times)
  return times(a, b)


def merge(low_rank: LowRank, params: types.PyTree) -> types.PyTree:
  """The parameters without pairs, each kernel with its own taken in."""
  if not isinstance(params, dict):
    return params
  merged: dict[str, Any] = {
    key: merge(low_rank, child)
    for key, child in params.items()
    if key not in PAIR
  }
  if PAIR[0] in params:
    kernel, (a, b) = params["kernel"], (params[name] for name in PAIR)
    update = product(a, b, kernel.ndim)
    merged["kernel"] = kernel + (low_rank.scale * update).astype(kernel.dtype)
  return merged
