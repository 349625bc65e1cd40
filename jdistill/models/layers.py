# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The small parts of a decoder layer, created stacked over layers.

Parameters have a leading `layers` axis when created; inside the scan a module
holds one layer's slice, and `__call__` is written for that. Each parameter
carries its logical axes as the metadata `axes`.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdistill import types
from jdistill.models import division, quantised
from jdistill.models import low_rank as low_rank_lib
from jdistill.models.low_rank import LowRank
from jdistill.models.spec import LayerSpec

ACTIVATIONS = {
  "silu": jax.nn.silu,
  "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


class RMSNorm(nnx.Module):
  """Divides by the root mean square of the last axis; float32 inside."""

  def __init__(
    self, spec: LayerSpec, shape: tuple[int, ...], axes: tuple[str, ...]
  ):
    self.eps = spec.norm_eps
    self.plus_one = spec.norm_plus_one
    fill = 0.0 if spec.norm_plus_one else 1.0
    self.scale = nnx.Param(jnp.full(shape, fill, jnp.float32), axes=axes)

  def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    scale = self.scale[...].astype(wide.dtype)
    if self.plus_one:
      scale = 1.0 + scale
    scale = jnp.expand_dims(scale, tuple(range(x.ndim - 1)))
    normed = wide * jax.lax.rsqrt(mean_square + self.eps) * scale
    return normed.astype(x.dtype)


class Linear(nnx.Module):
  """A product over the last `num_in` axes of its input, plus a bias.

  Args:
    shape: of the kernel, [L, *inputs, *outputs].
    axes: their logical names.
    num_in: how many of them are inputs.
    stacked: how many axes lie before them; 2 where each layer has many.
    rngs: where the kernel is drawn from, at 1 / sqrt(fan in) * `gain`.
    bias: whether to add one.
    gain: multiplies the standard deviation.
    low_rank: adapters to learn beside the kernel, or None.
  """

  def __init__(
    self,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    num_in: int,
    rngs: nnx.Rngs,
    *,
    stacked: int = 1,
    bias: bool = False,
    gain: float = 1.0,
    low_rank: LowRank | None = None,
  ):
    self.num_in = num_in
    self.low_rank = low_rank
    cut = stacked + num_in
    fan_in = math.prod(shape[stacked:cut])
    draw = jax.random.truncated_normal(rngs.params(), -3.0, 3.0, shape)
    self.kernel = nnx.Param(
      draw * (gain * fan_in**-0.5), axes=axes, inputs=tuple(range(stacked, cut))
    )
    self.bias = _bias(shape, axes, stacked, cut) if bias else None
    pair = None, None
    if low_rank is not None:
      pair = _pair(shape, axes, stacked, cut, low_rank.rank, rngs)
    self.lora_a, self.lora_b = pair

  def __call__(self, x: jax.Array) -> jax.Array:
    weight = quantised.dense(self.kernel.get_value(), x.dtype)
    batch, outputs = x.shape[: -self.num_in], weight.shape[self.num_in :]
    # Two plain matrices: a product over [B, T, D] makes XLA's CPU backend
    # transpose the gradient, fused into whatever computes it, which halves
    # the speed of the backward pass. Divided positions cannot be joined with
    # divided rows without gathering them.
    together = len(batch) < 2 or division.parts(batch[1]) == 1
    x = x.reshape(*((math.prod(batch),) if together else batch), -1)
    y = product(x, weight.reshape(-1, math.prod(outputs)))
    if self.low_rank and self.lora_a is not None and self.lora_b is not None:
      a = self.lora_a[...].reshape(-1, self.low_rank.rank)
      b = self.lora_b[...].reshape(self.low_rank.rank, -1)
      y = y + product(product(x, a), b) * self.low_rank.scale
    y = y.reshape(*batch, *outputs)
    if self.bias is not None:
      bias = jnp.expand_dims(
        self.bias[...], tuple(range(y.ndim - self.bias.ndim))
      )
      # In the bias's dtype, and so is the sum that its gradient is.
      y = (y + bias).astype(y.dtype)
    return y

  def merged(self, dtype: Any) -> jax.Array:
    """The kernel of one layer with its adapters taken in, [*inputs, *outputs],
    for those that multiply by themselves."""
    kernel = quantised.dense(self.kernel.get_value(), dtype)
    if self.low_rank and self.lora_a is not None and self.lora_b is not None:
      a, b = self.lora_a[...].astype(dtype), self.lora_b[...].astype(dtype)
      kernel = (
        kernel + low_rank_lib.product(a, b, kernel.ndim) * self.low_rank.scale
      )
    return kernel


def outputs(
  x: Float[Array, "B T D"], linears: Sequence[Linear], sizes: Sequence[int]
) -> Iterator[Float[Array, "B T F *H"]]:
  """What each of several products says of one input.

  Args:
    x: the input.
    linears: each with a kernel of its own, [D, F, ...], or all `side_by_side`.
    sizes: F of each.
  """
  first, *others = linears
  if any(one.kernel.get_value().shape[1] for one in others):
    return (one(x) for one in linears)
  cuts = list(itertools.accumulate(sizes))[:-1]
  return iter(jnp.split(first(x), cuts, axis=x.ndim - 1))


def side_by_side(
  params: dict[str, types.PyTree], names: Sequence[str]
) -> dict[str, types.PyTree]:
  """One layer's parameters with those of some `Linear`s all in the first.

  What the others have is empty. Of few rows one large product is faster than
  several small ones on a CPU. Those with adapters stay apart.
  """
  own = {name: params[name] for name in names}
  if any("lora_a" in one for one in own.values()):
    return params

  def empty(array: jax.Array, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(array, 0, 0, axis=axis)

  def join(key: str, axis: int) -> list[types.PyTree]:
    each = [one[key] for one in own.values()]
    whole = jax.tree.map(lambda *a: jnp.concatenate(a, axis), *each)
    rest = [jax.tree.map(lambda a: empty(a, axis), a) for a in each[1:]]
    return [whole, *rest]

  axes = {"kernel": 1, "bias": 0}
  joined = {key: join(key, axes[key]) for key in own[names[0]]}
  return params | {
    name: {key: each[n] for key, each in joined.items()}
    for n, name in enumerate(names)
  }


def product(
  x: Float[Array, "*N D"], kernel: Float[Array, "D F"]
) -> Float[Array, "*N F"]:
  """x @ kernel in the dtype of `x`, the kernel's gradient in the kernel's.

  With bfloat16 inputs and float32 kernels, the usual gradient of the cast
  would be rounded to bfloat16 on every device and summed over devices in that.
  """
  if kernel.dtype == x.dtype:
    return x @ kernel
  return _mixed_product(x, kernel)


@jax.custom_vjp
def _mixed_product(x, kernel):
  return x @ kernel.astype(x.dtype)


def _mixed_product_fwd(x, kernel):
  return _mixed_product(x, kernel), (x, kernel)


def _mixed_product_bwd(saved, d_y):
  x, kernel = saved
  lead = tuple(range(x.ndim - 1))
  d_kernel = jnp.tensordot(
    x, d_y, (lead, lead), preferred_element_type=kernel.dtype
  )
  return d_y @ kernel.astype(x.dtype).T, d_kernel


_mixed_product.defvjp(_mixed_product_fwd, _mixed_product_bwd)


def _bias(
  shape: tuple[int, ...], axes: tuple[str | None, ...], stacked: int, cut: int
) -> nnx.Param:
  return nnx.Param(
    jnp.zeros(shape[:stacked] + shape[cut:]), axes=axes[:stacked] + axes[cut:]
  )


def _pair(
  shape: tuple[int, ...],
  axes: tuple[str | None, ...],
  stacked: int,
  cut: int,
  rank: int,
  rngs: nnx.Rngs,
) -> tuple[nnx.Param, nnx.Param]:
  """Adapters: A [L, *inputs, rank] drawn, B [L, rank, *outputs] zero."""
  draw = jax.random.normal(rngs.params(), (*shape[:cut], rank))
  draw *= math.prod(shape[stacked:cut]) ** -0.5
  zeros = jnp.zeros((*shape[:stacked], rank, *shape[cut:]))
  return (
    nnx.Param(draw, axes=(*axes[:cut], "rank")),
    nnx.Param(zeros, axes=(*axes[:stacked], "rank", *axes[cut:])),
  )


class Mlp(nnx.Module):
  """down(act(gate(x)) * up(x))."""

  TOGETHER = "gate", "up"

  def __init__(self, spec: LayerSpec, num_layers: int, rngs: nnx.Rngs):
    self.activation = spec.activation
    self.mlp_width = spec.mlp_width
    wide = (num_layers, spec.width, spec.mlp_width)
    axes = ("layers", "embed", "mlp")
    self.gate = Linear(wide, axes, 1, rngs, low_rank=spec.adapters("gate"))
    self.up = Linear(wide, axes, 1, rngs, low_rank=spec.adapters("up"))
    self.down = Linear(
      (num_layers, spec.mlp_width, spec.width),
      ("layers", "mlp", "embed"),
      1,
      rngs,
      gain=(2 * spec.num_layers) ** -0.5,
      low_rank=spec.adapters("down"),
    )

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    gate, up = outputs(x, (self.gate, self.up), (self.mlp_width,) * 2)
    return self.down(ACTIVATIONS[self.activation](gate) * up)
