# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention with packing, sliding windows and a KV cache."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from jdistill.models import division
from jdistill.models.layers import Linear, RMSNorm, outputs
from jdistill.models.rope import rotate
from jdistill.models.spec import LayerSpec

Mix: TypeAlias = Callable[
  [jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]
]
"""`mix(q, k, v) -> (mixed, probs)`, as `attend` returns them; probabilities
that nobody wants may be None."""


class Sight(NamedTuple):
  """Which keys a query may see before windows, and how far back they are."""

  allowed: jax.Array  # [B, T, S] bool
  distance: jax.Array  # [B, T, S] int32, positions from key to query

  def within(self, window: Int[Array, ""]) -> Bool[Array, "B T S"]:
    """What is left when a query sees `window` positions, its own included."""
    return self.allowed & (self.distance < window)


def packed_sight(
  positions: Int[Array, "B T"], segment_ids: Int[Array, "B T"]
) -> Sight:
  """Causal by position within a segment; padding (segment 0) sees padding."""
  distance = positions[:, :, None] - positions[:, None, :]
  same = segment_ids[:, :, None] == segment_ids[:, None, :]
  allowed = same & (distance >= 0)
  return Sight(division.divided(allowed), division.divided(distance))


def cached_sight(
  positions: Int[Array, "B T"], length: int, *, ring: bool = False
) -> Sight:
  """Causal over a cache, whose slots hold the position of their number; in a
  ring the newest position of which that is the rest by `length`."""
  slots = jnp.arange(length, dtype=positions.dtype)
  distance = positions[:, :, None] - slots[None, None, :]
  if not ring:
    return Sight(distance >= 0, distance)
  distance = distance % length
  return Sight(distance <= positions[:, :, None], distance)


class Branches(NamedTuple):
  """New tokens of texts that go on in several ways at once, as trees.

  A cache holds the text in slots below `root`, each the position of its number,
  and node m of the tree in slot `root + m`, at position `root + depths[m]`. The
  root is node 0, of depth 0. A new token sees the text and, of the nodes, what
  `seen` says: those on its way from the root, itself included.
  """

  nodes: jax.Array  # [B, T] which the new tokens are; negative: not written
  root: jax.Array  # [B]
  depths: jax.Array  # [B, M]
  seen: jax.Array  # [B, T, M] bool

  @property
  def positions(self) -> Int[Array, "B T"]:
    """Of the new tokens."""
    depths = jnp.take_along_axis(self.depths, jnp.maximum(self.nodes, 0), 1)
    return self.root[:, None] + depths

  def placed(self, length: int) -> tuple[Int[Array, "B T"], Sight]:
    """Where in a cache of `length` slots they go, and which they see."""
    root = self.root[:, None]
    slots = jnp.arange(length, dtype=root.dtype)[None]
    node = slots - root  # [B, S]
    known = (node >= 0) & (node < self.depths.shape[1])
    node = jnp.clip(node, 0, self.depths.shape[1] - 1)
    depth = jnp.take_along_axis(self.depths, node, 1)
    places = jnp.where(known, root + depth, slots)
    allowed = jnp.where(
      known[:, None, :],
      jnp.take_along_axis(self.seen, node[:, None, :], 2),
      (slots < root)[:, None, :],
    )  # [B, T, S]
    sight = Sight(allowed, self.positions[:, :, None] - places[:, None, :])
    return jnp.where(self.nodes < 0, length, root + self.nodes), sight


def attend(
  q: Float[Array, "B T H Dh"],
  k: Float[Array, "B S N Dh"],
  v: Float[Array, "B S N Dh"],
  mask: Bool[Array, "B T S"],
  *,
  scale: float,
  soft_cap: float | None,
) -> tuple[Float[Array, "B T H Dh"], Float[Array, "B N T G S"]]:
  """Softmax attention; scores are at least float32.

  Args:
    q: queries; head h reads key/value head h // G, where G = H / N.
    k: keys.
    v: values.
    mask: where a query may look. One that may look nowhere gets the mean of
      all values, which is finite.
    scale: multiplies the scores.
    soft_cap: bounds them smoothly, before the mask.
  Returns: the mixed values, and the probabilities.
  """
  batch, length, num_heads, head_dim = q.shape
  q = q.reshape(batch, length, k.shape[2], -1, head_dim)
  # "bntgs" is the order in which the batched matmul writes its result: any
  # other costs a transpose of the largest array here.
  wide = jnp.promote_types(q.dtype, jnp.float32)
  scores = jnp.einsum("btngd,bsnd->bntgs", q, k, preferred_element_type=wide)
  scores = scores * scale
  if soft_cap is not None:
    scores = soft_cap * jnp.tanh(scores / soft_cap)
  scores = jnp.where(
    mask[:, None, :, None, :], scores, jnp.finfo(scores.dtype).min
  )
  probs = checkpoint_name(jax.nn.softmax(scores, axis=-1), "probs")
  mixed = jnp.einsum("bntgs,bsnd->btngd", probs.astype(v.dtype), v)
  return mixed.reshape(batch, length, num_heads, head_dim), probs


class LayerCache(NamedTuple):
  """Where one layer of a stack keeps its keys and values."""

  kept: tuple[jax.Array, jax.Array]  # keys and values, [L, B, S, N, Dh]
  layer: Any  # int32
  slots: Any  # [B, T] int32, where new ones go; out of range is not written

  @property
  def k(self) -> Float[Array, "B S N Dh"]:
    return self.kept[0][self.layer]

  @property
  def v(self) -> Float[Array, "B S N Dh"]:
    return self.kept[1][self.layer]

  def write(self, k: jax.Array, v: jax.Array) -> "LayerCache":
    # Into the stack: a layer that is taken out, written to and put back costs
    # its whole size for every token.
    def put(rows, at, new):  # rows [L, S, N, Dh]
      return rows.at[self.layer, at].set(new.astype(rows.dtype), mode="drop")

    each = jax.vmap(put, in_axes=(1, 0, 0), out_axes=1)
    k_stack, v_stack = self.kept
    kept = each(k_stack, self.slots, k), each(v_stack, self.slots, v)
    return self._replace(kept=kept)


class TokenCache(NamedTuple):
  """Where a layer apart keeps them for one token of each row at a time, laid
  out for `attend_one`.

  With fewer slots than the text has positions it is a ring, see `cached_sight`.
  """

  k: jax.Array  # [B, N, Dh, R]
  v: jax.Array  # [B, N, R, Dh]
  slots: Any  # [B, 1] int32; out of range is not written

  @property
  def kept(self) -> tuple[jax.Array, jax.Array]:
    return self.k, self.v

  @classmethod
  def holding(
    cls,
    k: Float[Array, "B S N Dh"],
    v: Float[Array, "B S N Dh"],
    lengths: Int[Array, " B"],
    size: int,
  ) -> "TokenCache":
    """The last `size` of the S positions, of which `lengths` are there."""
    if size < k.shape[1]:
      last = lengths[:, None] - 1
      slots = jnp.arange(size, dtype=lengths.dtype)[None]
      # Those below 0 are in no query's sight.
      places = jnp.maximum(last - (last - slots) % size, 0)
      take = jax.vmap(lambda row, at: row[at])
      k, v = take(k, places), take(v, places)
    return cls(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3), None)

  def write(self, k: jax.Array, v: jax.Array) -> "TokenCache":
    at, drop = self.slots[:, 0], {"mode": "drop"}
    new_k, new_v = k[:, 0].astype(self.k.dtype), v[:, 0].astype(self.v.dtype)
    return TokenCache(
      jax.vmap(lambda a, i, x: a.at[:, :, i].set(x, **drop))(self.k, at, new_k),
      jax.vmap(lambda a, i, x: a.at[:, i].set(x, **drop))(self.v, at, new_v),
      self.slots,
    )


def attend_one(
  q: Float[Array, "B 1 H Dh"],
  k: Float[Array, "B N Dh S"],
  v: Float[Array, "B N S Dh"],
  mask: Bool[Array, "B 1 S"],
  *,
  scale: float,
  soft_cap: float | None,
) -> tuple[Float[Array, "B 1 H Dh"], Float[Array, "B N 1 G S"]]:
  """What `attend` does for one query of each row.

  Plain sums of products, each along vectors that lie in memory as they are
  read: XLA's CPU backend transposes the whole cache for a batched matmul.
  """
  wide = jnp.promote_types(q.dtype, jnp.float32)
  heads = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])  # [B, N, G, Dh]
  scores = _sum(heads[..., None], k[:, :, None], wide) * scale
  if soft_cap is not None:
    scores = soft_cap * jnp.tanh(scores / soft_cap)
  lowest = jnp.finfo(scores.dtype).min
  scores = jnp.where(mask[:, :, None], scores, lowest)  # [B, N, G, S]
  probs = jax.nn.softmax(scores, axis=-1)
  mixed = _sum(probs.astype(v.dtype)[..., None], v[:, :, None], wide)
  return mixed.astype(v.dtype).reshape(q.shape), probs[:, :, None]


def _sum(a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
  return (a.astype(dtype) * b.astype(dtype)).sum(axis=-2)


class Attention(nnx.Module):
  """The attention branch of a layer, without its norms."""

  TOGETHER = "q", "k", "v"

  def __init__(self, spec: LayerSpec, num_layers: int, rngs: nnx.Rngs):
    self.spec = spec

    def project(name: str, count: int, axis: str) -> Linear:
      return Linear(
        (num_layers, spec.width, count, spec.head_dim),
        ("layers", "embed", axis, "head_dim"),
        1,
        rngs,
        bias=spec.qkv_bias,
        low_rank=spec.adapters(name),
      )

    self.q = project("q", spec.num_heads, "heads")
    self.k = project("k", spec.num_kv_heads, "kv_heads")
    self.v = project("v", spec.num_kv_heads, "kv_heads")
    self.o = Linear(
      (num_layers, spec.num_heads, spec.head_dim, spec.width),
      ("layers", "heads", "head_dim", "embed"),
      2,
      rngs,
      gain=(2 * spec.num_layers) ** -0.5,
      low_rank=spec.adapters("o"),
    )

    def norm() -> RMSNorm | None:
      if not spec.qk_norm:
        return None
      shape, axes = (num_layers, spec.head_dim), ("layers", "head_dim")
      return RMSNorm(spec, shape, axes)

    self.q_norm = norm()
    self.k_norm = norm()

  def __call__(
    self,
    x: Float[Array, "B T D"],
    cos: Float[Array, "B T F"],
    sin: Float[Array, "B T F"],
    mix: Mix,
    cache: LayerCache | TokenCache | None = None,
  ) -> tuple[Float[Array, "B T D"], Float[Array, "B N T G S"] | None, Any]:
    """The branch's output, its probabilities, and the cache written to.

    Without a cache, S = T and keys are the inputs' own.
    """
    num, num_kv = self.spec.num_heads, self.spec.num_kv_heads
    q, k, v = outputs(x, (self.q, self.k, self.v), (num, num_kv, num_kv))
    if self.q_norm is not None and self.k_norm is not None:
      q, k = self.q_norm(q), self.k_norm(k)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    if cache is not None:
      cache = cache.write(k, v)
      k, v = cache.k.astype(q.dtype), cache.v.astype(q.dtype)
    else:
      q, k, v = division.divided(q), division.gathered(k), division.gathered(v)
    mixed, probs = mix(q, k, v)
    return self.o(mixed), probs, cache
