# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a model remembers of the text so far: keys and values, or the text."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.models import base


@runtime_checkable
class Memory(Protocol):
  """How a model is asked for the next token's logits.

  `view` holds what is new in each row, in places `positions` of the row's
  text; segment 0 is not there. `last` [B] is where in `view` the row's last
  token is; the logits [B, V] are of what follows it.
  """

  def empty(
    self, params: types.PyTree, batch: int, length: int
  ) -> types.PyTree: ...

  def read(
    self,
    params: types.PyTree,
    kept: types.PyTree,
    view: types.Tokens,
    last: jax.Array,
  ) -> tuple[types.PyTree, jax.Array]: ...


@dataclasses.dataclass(frozen=True)
class Cached:
  """The model's own cache, from `init_cache(batch, length, dtype)`."""

  architecture: Any

  def empty(self, params, batch, length):
    del params
    dtype = getattr(self.architecture, "dtype", "float32")
    return self.architecture.init_cache(batch, length, dtype)

  def read(self, params, kept, view, last):
    outputs = self.architecture.bind(params)(view, cache=kept)
    return outputs.updates["cache"], _logits(outputs, last)


@dataclasses.dataclass(frozen=True)
class WholeText:
  """No cache: the text is kept, and read from its start for every token."""

  architecture: base.Architecture

  def empty(self, params, batch, length):
    del params
    return {
      "tokens": jnp.zeros((batch, length), jnp.int32),
      "length": jnp.zeros((batch,), jnp.int32),
    }

  def read(self, params, kept, view, last):
    # Tokens that are not there are written out of range, which drops them.
    width = kept["tokens"].shape[1]
    places = jnp.where(view.segment_ids > 0, view.positions, width)
    put = jax.vmap(lambda row, at, new: row.at[at].set(new, mode="drop"))
    tokens = put(kept["tokens"], places, view.tokens)
    length = kept["length"] + (view.segment_ids > 0).sum(axis=1)
    places = jnp.arange(width, dtype=jnp.int32)[None]
    inside = (places < length[:, None]).astype(jnp.int32)
    whole = types.Tokens(
      tokens=tokens,
      targets=jnp.zeros_like(tokens),
      mask=inside.astype(jnp.float32),
      positions=places * inside,
      segment_ids=inside,
    )
    outputs = self.architecture.bind(params)(whole)
    return {"tokens": tokens, "length": length}, _logits(outputs, length - 1)


def of(architecture: base.Architecture) -> Memory:
  """The model's cache if it has one, else the text."""
  if hasattr(architecture, "init_cache"):
    return Cached(architecture)
  return WholeText(architecture)


def _logits(outputs: types.Outputs, last: jax.Array) -> jax.Array:
  return outputs.at(last[:, None]).logits[:, 0]
