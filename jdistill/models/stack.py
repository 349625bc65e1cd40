# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A segment of like layers, scanned so that depth costs no compile time."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.models import division, features, flash, grouped, host, rope
from jdistill.models.attention import (
  Attention,
  Branches,
  LayerCache,
  Mix,
  Sight,
  TokenCache,
  attend,
  attend_one,
  cached_sight,
  packed_sight,
)
from jdistill.models.experts import ROUTES, Experts
from jdistill.models.layers import Mlp, RMSNorm
from jdistill.models.spec import LayerSpec, Segment

UNLIMITED = 2**30
"""A window that no document fills."""

POLICIES = {
  "elementwise": jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_saveable,
    jax.checkpoint_policies.save_only_these_names(
      flash.RESIDUALS, grouped.PRODUCTS, ROUTES
    ),
  ),
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(grouped.PRODUCTS, ROUTES),
  ),
}


class Layer(nnx.Module):
  """Attention and MLP, each on a normalised copy, each added back.

  Without an `attention_norm` attention reads what comes in as it is.
  """

  def __init__(self, spec: LayerSpec, segment: Segment, rngs: nnx.Rngs):
    num_layers = segment.num_layers

    def norm() -> RMSNorm:
      return RMSNorm(spec, (num_layers, spec.width), ("layers", "embed"))

    self.attention_norm: RMSNorm | None = norm()
    self.attention = Attention(spec, num_layers, rngs)
    self.mlp_norm = norm()
    branch = Experts if segment.sparse else Mlp
    self.mlp = branch(spec, num_layers, rngs)
    self.attention_post_norm = norm() if spec.post_norms else None
    self.mlp_post_norm = norm() if spec.post_norms else None

  def __call__(
    self,
    x: Float[Array, "B T D"],
    cos: Float[Array, "B T F"],
    sin: Float[Array, "B T F"],
    mix: Mix,
    cache: LayerCache | TokenCache | None,
  ) -> tuple[Float[Array, "B T D"], dict[str, Any], Any]:
    """The layer's output, its inner activations by kind, the cache."""
    values: dict[str, Any] = {"in": x}
    normed = x if self.attention_norm is None else self.attention_norm(x)
    mixed, values["probs"], cache = self.attention(normed, cos, sin, mix, cache)
    if self.attention_post_norm is not None:
      mixed = self.attention_post_norm(mixed)
    x = x + mixed
    normed = self.mlp_norm(x)
    if isinstance(self.mlp, Experts):
      mlp, values["router"], values["taken"] = self.mlp(normed)
    else:
      mlp = self.mlp(normed)
    if self.mlp_post_norm is not None:
      mlp = self.mlp_post_norm(mlp)
    out = x + mlp
    if cache is None:
      out = division.divided(out)
    return out, values | {"attn": mixed, "mlp": mlp, "out": out}, cache


class Layers(nnx.Module):
  """The layers of a model, `segment_0` and on."""

  apart: Any = MappingProxyType({})  # by segment: each layer's own

  def __init__(self, spec: LayerSpec, rngs: nnx.Rngs):
    self.spec = spec
    for n, segment in enumerate(spec.segments):
      setattr(self, f"segment_{n}", Layer(spec, segment, rngs))

  def through(
    self,
    x: Float[Array, "B T D"],
    view: types.Tokens,
    wanted: Mapping[str, tuple[int, ...]],
    cache: types.PyTree | None = None,
    branches: Branches | None = None,
  ) -> tuple[Float[Array, "B T D"], dict[str, jax.Array], types.PyTree]:
    """What comes out of the last layer, the wanted features, the cache after.

    Args:
      x: what goes into the first one.
      view: where its positions are in their texts.
      wanted: of `features.parse`.
      cache: of `empty_cache` or an earlier call; None attends to the inputs.
      branches: with a cache, where the tokens are in texts that branch.
    """
    spec = self.spec
    angles = rope.angles(spec.ropes, view.positions, spec.head_dim)
    sight = None
    if cache is None:
      sight = packed_sight(view.positions, view.segment_ids)
    found, after = {}, {}
    for n, segment in enumerate(spec.segments):
      name = f"segment_{n}"
      taps = features.Taps(wanted, spec.offsets[n], segment.num_layers)
      x, inner, after[name] = run(
        getattr(self, name),
        spec,
        segment,
        taps,
        x,
        angles,
        sight,
        view.positions,
        view.segment_ids,
        None if cache is None else cache[name],
        self.apart.get(name),
        branches,
      )
      found |= inner
    return x, found, None if cache is None else after


def empty_cache(
  spec: LayerSpec, batch: int, length: int, dtype: str = "float32"
) -> types.PyTree:
  """An empty cache for `batch` rows of up to `length` positions, divided
  over the mesh in context by rows and heads."""
  room = (batch, length, spec.num_kv_heads, spec.head_dim)

  def empty(segment: Segment) -> jax.Array:
    return division.cached(jnp.zeros((segment.num_layers, *room), dtype))

  return {
    f"segment_{n}": {name: empty(segment) for name in ("k", "v")}
    for n, segment in enumerate(spec.segments)
  }


def run(
  layers: Layer,
  spec: LayerSpec,
  segment: Segment,
  taps: features.Taps,
  x: Float[Array, "B T D"],
  angles: tuple[Float[Array, "R B T F"], Float[Array, "R B T F"]],
  sight: Sight | None,
  positions: Int[Array, "B T"],
  segment_ids: Int[Array, "B T"],
  cache: Mapping[str, Any] | None = None,
  apart: Sequence[types.PyTree] | None = None,
  branches: Branches | None = None,
) -> tuple[Float[Array, "B T D"], dict[str, jax.Array], Any]:
  """Applies a segment.

  Args:
    layers: parameters stacked over the segment's layers.
    spec: the model's numbers.
    segment: windows and ropes of these layers.
    taps: which inner activations to keep.
    x: what goes in.
    angles: cosines and sines of each of the model's ropes.
    sight: which inputs a query may see, windows aside; not needed with a cache.
    positions: of the inputs, to be written to the cache.
    segment_ids: the same for the kernel, of which `sight` is not read, and 0
      for what is not written to the cache.
    cache: `k` and `v` [L, B, S, N, Dh], or None to attend to the inputs.
    apart: each layer's parameters in place of those of `layers`. Depth costs
      compile time, but nothing is copied out of a stack. `k` and `v` of the
      cache may then be tuples of what L `TokenCache`s hold.
    branches: where in a cache the inputs are in place of `positions`; not with
      `TokenCache`s.
  Returns: what comes out, the features by name, the cache after.
  """
  graph, stacked = nnx.split(layers)
  kinds = tuple(taps.layers)
  by_token = cache is not None and isinstance(cache["k"], tuple)
  cos, sin = angles
  kernels = None
  if cache is None:
    probs = "probs" in kinds
    kernels = flash.plan(spec, segment, x.shape[1], probs=probs)

  def apply(params, x, number, kept):
    turn, seen, here = number["rope"], sight, None
    if kept is not None:
      length = kept[0].shape[3 if by_token else 2]
      # A cache of its own may keep the layer's window only.
      ring = by_token and int(number["window"]) == length
      seen = cached_sight(positions, length, ring=ring)
      slots = positions % length if ring else positions
      slots = jnp.where(segment_ids == 0, length, slots)
      if branches is not None:
        assert not by_token, "a tree of tokens is read at once"
        slots, seen = branches.placed(length)
      if by_token:
        here = TokenCache(kept[0], kept[1], slots)
      else:
        here = LayerCache(kept, number["index"], slots)
    assert seen is not None, "without a cache the inputs are seen"
    how = attend_one if isinstance(here, TokenCache) else attend
    mix = _mixer(spec, kernels, seen, segment_ids, number, how)
    x, values, here = nnx.merge(graph, params)(
      x, cos[turn], sin[turn], mix, here
    )
    kept = None if here is None else here.kept
    return x, {kind: values[kind] for kind in kinds}, kept

  if spec.remat != "none" and cache is None:
    apply = jax.checkpoint(
      apply, policy=POLICIES[spec.remat], prevent_cse=False
    )

  def body(carry, inputs):
    x, buffers, kept = carry
    params, number = inputs
    # The cache is carried and updated in place: as a scanned output it would
    # be copied whole at every generated token.
    x, values, kept = apply(host.fetched(params), x, number, kept)
    buffers = features.record(buffers, values, number["rows"])
    return (x, buffers, kept), None

  numbers = {
    "index": np.arange(segment.num_layers, dtype=np.int32),
    "rope": np.asarray(segment.ropes, np.int32),
    "window": np.asarray([w or UNLIMITED for w in segment.windows], np.int32),
    "rows": taps.rows,
  }
  if kernels is not None:
    numbers["kernel"] = np.asarray(kernels.index, np.int32)
  kept = None if cache is None else (cache["k"], cache["v"])

  def first(*stacks):
    params, number = jax.tree.map(lambda a: a[0], stacks)
    return apply(host.fetched(params), x, number, kept)[1]

  if apart is not None:
    return _one_by_one(apply, taps, x, apart, numbers, kept)
  shapes = jax.eval_shape(first, stacked, numbers)
  carry = (x, taps.buffers(shapes), kept)
  (x, buffers, kept), _ = jax.lax.scan(body, carry, (stacked, numbers))
  after = None if kept is None else dict(zip(("k", "v"), kept, strict=True))
  return x, taps.features(buffers), after


def _one_by_one(
  apply: Callable[..., Any],
  taps: features.Taps,
  x: Float[Array, "B T D"],
  apart: Sequence[types.PyTree],
  numbers: Mapping[str, Any],
  kept: Any,
) -> tuple[Float[Array, "B T D"], dict[str, jax.Array], Any]:
  """What `run` does, layer after layer in place of a scan."""
  found: dict[str, Any] = {kind: [] for kind in taps.layers}
  by_token = kept is not None and isinstance(kept[0], tuple)
  after = []
  for index, params in enumerate(apart):
    number = jax.tree.map(lambda a, i=index: a[i], numbers)
    if by_token:
      own = tuple(layers[index] for layers in kept)
      x, values, own = apply(params, x, number, own)
      after.append(own)
    else:
      x, values, kept = apply(params, x, number, kept)
    for kind, row in number["rows"].items():
      if row < len(taps.layers[kind]):
        found[kind].append(values[kind])
  cache = None
  if by_token:
    kept = zip(*after, strict=True)
  if kept is not None:
    cache = dict(zip(("k", "v"), kept, strict=True))
  return x, taps.features(found), cache


def _mixer(
  spec: LayerSpec,
  kernels: flash.Plan | None,
  sight: Sight,
  segment_ids: jax.Array,
  number: Mapping[str, Any],
  how: Callable[..., tuple[jax.Array, jax.Array]],
) -> Mix:
  """What one layer computes attention with; `number` are its own."""

  def dense(q, k, v):
    mask = sight.within(jnp.asarray(number["window"]))
    return how(
      q, k, v, mask, scale=spec.score_scale, soft_cap=spec.attention_soft_cap
    )

  if kernels is None:
    return dense

  def flashed(q, k, v):
    mixed = flash.choose(
      kernels,
      lambda *qkv: dense(*qkv)[0],
      q,
      k,
      v,
      segment_ids,
      number["kernel"],
    )
    return mixed, None

  return flashed
