# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts: a router, and MLPs of which each token takes a few.

No token is dropped, whatever the batch: experts have no capacity. Parameters,
with E experts of width F in each of L layers:

    mlp/router/kernel [L, D, E]
    mlp/gate/kernel [L, E, D, F]    (up too)
    mlp/down/kernel [L, E, F, D]

Over a mesh the experts are divided by its axis `expert`, which divides the rows
of the batch too: devices of that axis gather each other's rows, compute what
their own experts make of them, and scatter the sums back.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.models import grouped
from jdistill.models.layers import ACTIVATIONS, Linear
from jdistill.models.spec import LayerSpec, Mixture

ROUTES = "expert_routes"
"""The name, for checkpoint policies, of who goes where: a few integers for each
token that take a while to sort."""


class Router(nnx.Module):
  """Scores for each expert; always floats."""

  def __init__(self, shape: tuple[int, ...], rngs: nnx.Rngs):
    draw = jax.random.truncated_normal(rngs.params(), -3.0, 3.0, shape)
    self.kernel = nnx.Param(
      draw * shape[1] ** -0.5, axes=("layers", "embed", None)
    )

  def __call__(self) -> Float[Array, "D E"]:
    return self.kernel[...]


class Experts(nnx.Module):
  """sum_i p_i down_i(act(gate_i(x)) * up_i(x)) over a token's experts i."""

  def __init__(self, spec: LayerSpec, num_layers: int, rngs: nnx.Rngs):
    mixture = spec.experts
    assert mixture is not None, "spec.check refuses"
    self.mixture = mixture
    self.activation = spec.activation
    self.router = Router((num_layers, spec.width, mixture.num_experts), rngs)

    def linear(name: str, inputs: int, outputs: int, axes: Sequence[str]):
      return Linear(
        (num_layers, mixture.num_experts, inputs, outputs),
        ("layers", "expert", *axes),
        1,
        rngs,
        stacked=2,
        gain=(2 * spec.num_layers) ** -0.5 if name == "down" else 1.0,
        low_rank=spec.adapters(name),
      )

    self.gate = linear("gate", spec.width, mixture.width, ("embed", "mlp"))
    self.up = linear("up", spec.width, mixture.width, ("embed", "mlp"))
    self.down = linear("down", mixture.width, spec.width, ("mlp", "embed"))

  def __call__(
    self, x: Float[Array, "B T D"]
  ) -> tuple[Float[Array, "B T D"], Float[Array, "B T E"], Int[Array, "B T K"]]:
    """The sums, the router's probabilities, the numbers of those taken."""
    kernels = [k.merged(x.dtype) for k in (self.gate, self.up, self.down)]
    mix = Mix(self.mixture, ACTIVATIONS[self.activation])
    return divided(mix, x, self.router(), *kernels)


@dataclasses.dataclass(frozen=True)
class Mix:
  """What one device computes of a mixture, and with whom it exchanges.

  `expert` is the mesh axis that divides the experts, `rows` whether it divides
  the rows too, `tensor` the axis that divides each expert's width, `fsdp` the
  one that divides the other dimension of the kernels.
  """

  mixture: Mixture
  activation: Callable[[jax.Array], jax.Array]
  expert: str | None = None
  rows: bool = False
  tensor: str | None = None
  fsdp: str | None = None

  def __call__(
    self,
    x: Float[Array, "B T D"],
    router: Float[Array, "D E"],
    gate: Float[Array, "N Dl Fl"],
    up: Float[Array, "N Dl Fl"],
    down: Float[Array, "N Fl Dl"],
  ) -> tuple[Float[Array, "B T D"], Float[Array, "B T E"], Int[Array, "B T K"]]:
    tokens = x.reshape(-1, x.shape[-1])
    probs, share, taken = route(self.mixture, tokens, router)
    chosen = taken
    if self.expert is not None:
      if self.rows:
        tokens, share, chosen = (
          _gather(a, self.expert, 0) for a in (tokens, share, chosen)
        )
      chosen = chosen - jax.lax.axis_index(self.expert) * gate.shape[0]
    y = self._own(tokens, share, chosen, gate, up, down)
    if self.expert is not None and self.rows:
      y = jax.lax.psum_scatter(y, self.expert, tiled=True)
    elif self.expert is not None:
      y = jax.lax.psum(y, self.expert)
    if self.tensor is not None:
      y = jax.lax.psum(y, self.tensor)
    probs, taken = (a.reshape(*x.shape[:2], -1) for a in (probs, taken))
    return y.reshape(x.shape), probs, taken

  def _own(
    self,
    tokens: Float[Array, "N D"],
    share: Float[Array, "N K"],
    chosen: Int[Array, "N K"],
    gate: Float[Array, "E Dl Fl"],
    up: Float[Array, "E Dl Fl"],
    down: Float[Array, "E Fl Dl"],
  ) -> Float[Array, "N D"]:
    """What these experts add to each token; choices below 0 or from E are of
    others and add nothing."""
    num_experts, (num, k) = gate.shape[0], chosen.shape
    key = jnp.where((chosen >= 0) & (chosen < num_experts), chosen, num_experts)
    key = key.reshape(-1)
    order = checkpoint_name(_order(key, num_experts + 1), ROUTES)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
    # A token takes an expert once: no more than this can be theirs.
    take = order[: num * min(k, num_experts)]
    bounds = jnp.searchsorted(key[order], jnp.arange(num_experts + 1))
    sizes = jnp.diff(bounds).astype(jnp.int32)
    inner = outer = None
    if self.fsdp is not None:
      inner, outer = grouped.Parts(self.fsdp, 1), grouped.Parts(self.fsdp, 2)
    rows = _spread(k, tokens, take, back)
    hidden = self.activation(grouped.matmul(rows, gate, sizes, parts=inner))
    hidden = hidden * grouped.matmul(rows, up, sizes, parts=inner)
    out = _collect(grouped.matmul(hidden, down, sizes, parts=outer), take, back)
    return jnp.einsum(
      "nkd,nk->nd",
      out.reshape(num, k, -1),
      share.astype(out.dtype),
      preferred_element_type=share.dtype,
    ).astype(tokens.dtype)


def route(
  mixture: Mixture, tokens: Float[Array, "N D"], router: Float[Array, "D E"]
) -> tuple[Float[Array, "N E"], Float[Array, "N K"], Int[Array, "N K"]]:
  """Probabilities of all experts; shares and numbers of those that are taken.

  At least float32 whatever the tokens are: near ties must not be decided by
  rounding.
  """
  wide = jnp.promote_types(tokens.dtype, jnp.float32)
  logits = jnp.matmul(
    tokens.astype(wide),
    router.astype(wide),
    precision=jax.lax.Precision.HIGHEST,
  )
  probs = jax.nn.softmax(logits, axis=-1)
  _, taken = jax.lax.top_k(jax.lax.stop_gradient(probs), mixture.per_token)
  taken = checkpoint_name(taken, ROUTES)
  share = jnp.take_along_axis(probs, taken, axis=-1)
  if mixture.renormalise:
    share = share / share.sum(axis=-1, keepdims=True)
  return probs, share, taken


def _order(key: Int[Array, " C"], num_keys: int) -> Int[Array, " C"]:
  """What sorts keys below `num_keys`, equal ones in the order they come in."""
  if num_keys * key.size > jnp.iinfo(jnp.int32).max:
    return jnp.argsort(key, stable=True)
  # One number in place of two: a TPU's compiler takes a third of the time.
  both = key.astype(jnp.int32) * key.size + jnp.arange(key.size)
  return jax.lax.sort(both, is_stable=False) % key.size


# Two gathers that are each other's transpose, which JAX would make a scatter.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(k, x, take, back):
  """x [N, D] -> [M, D]: row m is the token of choice take[m], K of each."""
  del back
  return x[take // k]


def _spread_backward(k, back, slope):
  parts = _at(slope, back).reshape(-1, k, slope.shape[1])
  return parts.sum(1), None, None


_spread.defvjp(
  lambda k, x, take, back: (_spread(k, x, take, back), back),
  _spread_backward,
)


@jax.custom_vjp
def _collect(y, take, back):
  """y [M, D] -> [N * K, D]: choice c is in row back[c], or nowhere: zeros."""
  del take
  return _at(y, back)


_collect.defvjp(
  lambda y, take, back: (_collect(y, take, back), take),
  lambda take, slope: (slope[take], None, None),
)


def _at(y: jax.Array, index: jax.Array) -> jax.Array:
  return y.at[index].get(mode="fill", fill_value=0)


def _gather(x: jax.Array, axis: str, dimension: int) -> jax.Array:
  return jax.lax.all_gather(x, axis, axis=dimension, tiled=True)


def divided(
  mix: Mix,
  x: Float[Array, "B T D"],
  router: Float[Array, "D E"],
  gate: Float[Array, "E D F"],
  up: Float[Array, "E D F"],
  down: Float[Array, "E F D"],
) -> tuple[Float[Array, "B T D"], Float[Array, "B T E"], Int[Array, "B T K"]]:
  """A mixture over the mesh in context, each device its own rows and experts.

  Raises: UserError if the experts do not divide evenly.
  """
  mesh: Any = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return mix(x, router, gate, up, down)

  def divides(axis: str, size: int) -> str | None:
    parts = mesh.shape.get(axis, 1)
    return axis if parts > 1 and size % parts == 0 else None

  mix.mixture.check_division(mesh.shape.get(types.EXPERT_AXIS, 1))
  rows = tuple(a for a in types.BATCH_AXES if a in mesh.axis_names)
  whole = x.shape[0] % math.prod(mesh.shape[a] for a in rows)
  mix = dataclasses.replace(
    mix,
    expert=divides(types.EXPERT_AXIS, gate.shape[0]),
    rows=not whole,
    tensor=divides("tensor", gate.shape[2]),
    fsdp=divides("fsdp", gate.shape[1]),
  )
  positions = divides(types.CONTEXT_AXIS, x.shape[1])
  batch = PartitionSpec(None if whole else rows, positions)
  wide = PartitionSpec(mix.expert, mix.fsdp, mix.tensor)
  return jax.shard_map(
    mix,
    in_specs=(
      batch,
      PartitionSpec(),
      wide,
      wide,
      PartitionSpec(mix.expert, mix.tensor, mix.fsdp),
    ),
    out_specs=(batch, batch, batch),
    check_vma=False,
  )(x, router, gate, up, down)
