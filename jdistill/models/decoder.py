# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Decoder-only transformers: one family with the switches of many.

Parameters, with L the layers of a segment and F the width of the MLP:

    embedding/weight [V, D]   norm/scale [D]       head/weight [V, D] (untied)
    segment_0/attention_norm/scale [L, D]          (and mlp_norm, *_post_norm)
    segment_0/attention/q/kernel [L, D, H, Dh]     (k, v with kv_heads for H)
    segment_0/attention/q/bias [L, H, Dh]          (k, v too)
    segment_0/attention/q_norm/scale [L, Dh]       (k_norm too)
    segment_0/attention/o/kernel [L, H, Dh, D]
    segment_0/mlp/gate/kernel [L, D, F]            (up too)
    segment_0/mlp/down/kernel [L, F, D]

A sparse segment's MLP is that of `jdistill.models.experts`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.models import (
  division,
  features,
  host,
  low_rank,
  quantised,
  stack,
)
from jdistill.models.attention import Attention, Branches, TokenCache
from jdistill.models.base import Architecture
from jdistill.models.layers import Mlp, RMSNorm, side_by_side
from jdistill.models.spec import DecoderSpec


@dataclasses.dataclass(frozen=True)
class DecoderConfig(DecoderSpec, Architecture):
  """A decoder without parameters."""

  def init(self, key: jax.Array) -> types.PyTree:
    """Draws float32 parameters, or what `kernels` says."""
    model = Decoder(self, nnx.Rngs(params=key))
    return self.store(nnx.to_pure_dict(nnx.split(model)[1]))

  def store(
    self, params: types.PyTree, shardings: types.PyTree | None = None
  ) -> types.PyTree:
    """Float parameters the way this model keeps them.

    Args:
      params: of the same model with `kernels="float"`.
      shardings: where to put int8 kernels; None leaves it to the compiler.
    """
    if self.kernels == "float":
      return params
    return quantised.tree(params, _abstract(self).inputs, shardings)

  @property
  def stacks(self) -> tuple[str, ...]:
    """Parts of the parameters that are read layer by layer."""
    return tuple(f"segment_{n}" for n in range(len(self.segments)))

  def trainable(self) -> types.PyTree | None:
    """With adapters: true for these and what moves beside them."""
    if self.low_rank is None:
      return None
    return low_rank.trainable(self.low_rank, self.shapes())

  def merged(self, params: types.PyTree) -> types.PyTree:
    """The parameters of the same model with `low_rank=None`."""
    if self.low_rank is None:
      return params
    return low_rank.merge(self.low_rank, params)

  def axes(self) -> types.PyTree:
    """Each parameter's logical axes, in the tree of the parameters."""
    return _abstract(self).axes

  def bind(self, params: types.PyTree) -> "Decoder":
    """The model with these parameters, stacked or those of `unstacked`."""
    apart = _apart(params)
    first = {name: layers[0] for name, layers in apart.items()}
    model = nnx.merge(_abstract(self).graph, {**params, **first})
    if apart:
      model.apart = nnx.data(apart)
    return model

  def last_layer(
    self, params: types.PyTree
  ) -> tuple[types.PyTree, Callable[[types.PyTree], "Decoder"]]:
    """Parameters of the last layer, stacks of one, and `bind` with these.

    A backward pass to them goes through that layer alone.
    """
    *before, stack = self.segments
    name, depth = f"segment_{len(before)}", stack.num_layers - 1
    if not depth:
      return params[name], lambda own: self.bind({**params, name: own})
    split = dataclasses.replace(
      self,
      segments=(*before, stack.keep(tuple(range(depth))), stack.keep((depth,))),
    )

    def take(part: slice) -> types.PyTree:
      # Masks may have one value for all layers.
      pick = lambda a: a if a.shape[0] == 1 else a[part]  # noqa: E731
      return jax.tree.map(pick, params[name])

    rest = {**params, name: take(slice(depth))}
    own, last = take(slice(depth, None)), f"segment_{len(before) + 1}"
    return own, lambda own: split.bind({**rest, last: own})

  def unstacked(self, params: types.PyTree) -> types.PyTree:
    """Copies of the stacked parameters, each layer's apart: a tuple of trees
    in place of each of `stacks`; what lies apart stays as it is.

    For many small calls: a scan copies each layer out of the stack every time.
    Kernels that read the same lie in one, unless heads are divided over the
    mesh in context.
    """
    stacks = {
      n: host.fetched(params[n]) for n in self.stacks if n not in _apart(params)
    }
    turn = _layer if types.axis_size(types.HEADS_AXIS) > 1 else _joined_layer
    return {**params, **{n: _layers(tree, turn) for n, tree in stacks.items()}}

  def unstacked_cache(
    self, cache: types.PyTree, lengths: Int[Array, " B"]
  ) -> types.PyTree:
    """The cache as a model with parameters of `unstacked` keeps it.

    One token of each row may be read at a time from here on. A layer with a
    window keeps so many positions and no more.

    Args:
      cache: of `init_cache` and later calls.
      lengths: how many positions each row has read.
    """

    def turn(segment, k, v):
      layers = [
        TokenCache.holding(k, v, lengths, min(window or k.shape[1], k.shape[1]))
        for k, v, window in zip(
          _layers(k), _layers(v), segment.windows, strict=True
        )
      ]
      return {
        "k": tuple(layer.k for layer in layers),
        "v": tuple(layer.v for layer in layers),
      }

    return {
      f"segment_{n}": turn(segment, **cache[f"segment_{n}"])
      for n, segment in enumerate(self.segments)
    }

  def ends(self, params: types.PyTree) -> "Ends":
    """What stands at the two ends of the layers; nothing is copied."""
    table = params["embedding"]["weight"]
    head = table if self.tied else params["head"]["weight"]
    return Ends(table, head, self)

  def init_cache(
    self, batch: int, length: int, dtype: str = "float32"
  ) -> types.PyTree:
    """An empty cache for `batch` rows of up to `length` positions, divided
    over the mesh in context by rows and heads."""
    return stack.empty_cache(self, batch, length, dtype)

  def moved(
    self,
    cache: types.PyTree,
    source: Int[Array, "B M"],
    target: Int[Array, "B M"],
  ) -> types.PyTree:
    """The cache with what is in slots `source` in slots `target` as well.

    Targets out of range are left out.
    """

    def move(row, source, target):  # row [L, S, N, Dh]
      return row.at[:, target].set(row[:, source], mode="drop")

    each = jax.vmap(move, in_axes=(1, 0, 0), out_axes=1)
    return jax.tree.map(lambda kept: each(kept, source, target), cache)


def _apart(params: types.PyTree) -> dict[str, tuple[types.PyTree, ...]]:
  """The parts whose layers lie apart."""
  return {n: part for n, part in params.items() if isinstance(part, tuple)}


@jax.jit
def _layer(stacked: types.PyTree, index: jax.Array) -> types.PyTree:
  # One program for all: a slice at a fixed place would compile for each.
  return jax.tree.map(lambda a: a[index], stacked)


@jax.jit
def _joined_layer(stacked: types.PyTree, index: jax.Array) -> types.PyTree:
  layer = _layer(stacked, index)
  branches = {"attention": Attention, "mlp": Mlp}
  if "router" in layer["mlp"]:
    del branches["mlp"]  # experts have kernels of their own
  return layer | {
    name: side_by_side(layer[name], branch.TOGETHER)
    for name, branch in branches.items()
  }


def _layers(
  stacked: types.PyTree, turn: Callable[..., types.PyTree] = _layer
) -> tuple[types.PyTree, ...]:
  """A tree for each entry of the leading axis."""
  length = jax.tree.leaves(stacked)[0].shape[0]
  return tuple(turn(stacked, np.int32(i)) for i in range(length))


class _Abstract(NamedTuple):
  """A model without arrays."""

  graph: Any
  axes: types.PyTree  # logical names
  inputs: types.PyTree  # which of a kernel's axes are inputs, else ()


@functools.lru_cache(maxsize=64)
def _abstract(config: DecoderConfig) -> _Abstract:
  model = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(params=0)))
  graph, state = nnx.split(model)

  def each(fn, tree):
    if isinstance(tree, nnx.Variable):
      return fn(**tree.get_metadata())
    return {key: each(fn, child) for key, child in tree.items()}

  def names(axes, inputs=(), **_):
    if inputs and config.kernels == "int8":
      return quantised.axes(axes, inputs)
    return axes

  inputs = each(lambda inputs=(), **_: inputs, state)
  return _Abstract(graph, each(names, state), inputs)


class Table(nnx.Module):
  """A vector of width D for each token."""

  def __init__(self, spec: DecoderSpec, rngs: nnx.Rngs):
    shape = (spec.vocab_size, spec.width)
    draw = jax.random.normal(rngs.params(), shape)
    self.weight = nnx.Param(draw * 0.02, axes=("vocab", "embed"))


@types.pytree(static=("spec",))
class Ends:
  """The table that tokens are looked up in, and the head."""

  table: types.Leaf  # [V, D]
  weight: types.Leaf  # [V, D] of the head
  spec: DecoderSpec

  def embed(self, tokens: Int[Array, "*B"]) -> Float[Array, "*B D"]:
    """What the first layer receives for these ids, scaled as the model does."""
    dtype = jnp.dtype(self.spec.dtype)
    rows = self.table[tokens].astype(dtype)
    return rows * jnp.asarray(self.spec.embed_scale, dtype)

  @property
  def head(self) -> types.Head:
    return types.Head(self.weight, soft_cap=self.spec.final_soft_cap)


class Decoder(stack.Layers):
  """A decoder with its parameters."""

  def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
    self.config = config
    self.embedding = Table(config, rngs)
    super().__init__(config, rngs)
    self.norm = RMSNorm(config, (config.width,), ("embed",))
    self.head = None if config.tied else Table(config, rngs)

  @property
  def ends(self) -> Ends:
    table = self.embedding if self.head is None else self.head
    return Ends(self.embedding.weight[...], table.weight[...], self.config)

  def embed(self, tokens: Int[Array, "*B"]) -> Float[Array, "*B D"]:
    """What the first layer receives for these ids, scaled as the model does."""
    return self.ends.embed(tokens)

  def __call__(
    self,
    view: types.Tokens,
    want: Sequence[str] = (),
    cache: types.PyTree | None = None,
    branches: Branches | None = None,
  ) -> types.Outputs:
    """Hidden states after the final norm, ready for the head.

    Args:
      view: `tokens` are ids, or what `embed` would return for them. Entries of
        segment 0 are padding: they come out finite and nobody sees them.
        `positions` are counted within each segment.
      want: names of features, see `jdistill.models.features`.
      cache: of `init_cache` or an earlier call. Row b writes its keys and
        values at `positions[b]` and attends to everything cached up to its
        own position, so each row is one document, continued call by call
        without gaps; padding is not written. Positions must be below the
        cache's length: what lies beyond is not kept.
      branches: with a cache, where the tokens are in texts that branch, in
        place of `positions[b]`.
    Returns: Outputs; with a cache, `updates["cache"]` is the cache after.
    Raises:
      UserError: for a feature that the model does not have.
    """
    config = self.config
    wanted = features.parse(want, config.sparse_layers)
    x = view.tokens
    if not jnp.issubdtype(x.dtype, jnp.floating):
      x = self.embed(x)
    x = x.astype(config.dtype)
    if cache is None:
      x = division.embedded(x)
    found = {"embed": x}
    x, inner, after = self.through(x, view, wanted, cache, branches)
    found |= inner
    hidden = self.norm(x)
    if "pooled" in want:
      found["pooled"] = _masked_mean(hidden, view.mask)
    for name in features.ROUTERS.keys() & set(want):
      kind = features.ROUTERS[name]
      found[name] = features.routers(found, config.sparse_layers, kind)
    return types.Outputs(
      hidden=hidden,
      head=self.ends.head,
      features={name: found[name] for name in want},
      updates={} if cache is None else {"cache": after},
    )


def _masked_mean(
  hidden: Float[Array, "B T D"], mask: Float[Array, "B T"]
) -> Float[Array, "B D"]:
  """The mean of the counted positions; 0 for rows without any."""
  wide = jnp.promote_types(hidden.dtype, jnp.float32)
  total = jnp.einsum("btd,bt->bd", hidden.astype(wide), mask.astype(wide))
  return total / jnp.maximum(mask.sum(axis=1), 1.0)[:, None]
