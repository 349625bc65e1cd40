# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a model remembers of the text so far: keys and values, or the text."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jdistill import types
from jdistill.models import base


@runtime_checkable
class Memory(Protocol):
  """How a model is asked for the next token's logits.

  `view` holds what is new in each row, in places `positions` of the row's
  text; segment 0 is not there. What was read in these places before, or is
  remembered of places behind them, is forgotten. `last` [B] is where in `view`
  the row's last token is; the logits [B, V] are of what follows it. `read_all`
  hands out what the model says of every token of the view; `branches` are
  of texts that branch, which only a cache can hold (`can_branch`).
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

  def settled(self, params: types.PyTree) -> types.PyTree:
    """The parameters in a form in which single tokens are read faster."""
    ...

  def settled_kept(
    self, kept: types.PyTree, lengths: jax.Array
  ) -> types.PyTree:
    """What is kept, of `lengths` [B] tokens, in the form that goes with
    `settled` parameters."""
    ...


@dataclasses.dataclass(frozen=True)
class Cached:
  """The model's own cache, from `init_cache(batch, length, dtype)`.

  Attributes:
    architecture: the model's.
    unstack: whether to keep a copy of the parameters in which each layer lies
      apart; None: on a CPU, where reading layers out of a stack copies them at
      every token.
  """

  architecture: Any
  unstack: bool | None = None

  def empty(self, params, batch, length):
    del params
    dtype = getattr(self.architecture, "dtype", "float32")
    return self.architecture.init_cache(batch, length, dtype)

  def read(self, params, kept, view, last):
    kept, outputs = self.read_all(params, kept, view)
    return kept, _logits(outputs, last)

  def read_all(self, params, kept, view, branches=None):
    how = {} if branches is None else {"branches": branches}
    outputs = self.architecture.bind(params)(view, cache=kept, **how)
    return outputs.updates["cache"], outputs

  def settled(self, params):
    return self.architecture.unstacked(params) if self._apart else params

  def settled_kept(self, kept, lengths):
    if not self._apart:
      return kept
    return self.architecture.unstacked_cache(kept, lengths)

  @property
  def _apart(self) -> bool:
    if self.unstack is not None or not hasattr(self.architecture, "unstacked"):
      return bool(self.unstack)
    platform = types.target_platform() or jax.default_backend()
    return platform == "cpu"


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
    kept, outputs = self.read_all(params, kept, view)
    return kept, _logits(outputs, last)

  def read_all(self, params, kept, view, branches=None):
    assert branches is None, "a text does not branch"
    # Tokens that are not there are written out of range, which drops them.
    width = kept["tokens"].shape[1]
    places = jnp.where(view.segment_ids > 0, view.positions, width)
    put = jax.vmap(lambda row, at, new: row.at[at].set(new, mode="drop"))
    tokens = put(kept["tokens"], places, view.tokens)
    there = view.segment_ids > 0
    length = jnp.where(there, view.positions + 1, 0).max(axis=1)
    length = jnp.where(there.any(axis=1), length, kept["length"])
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
    return {"tokens": tokens, "length": length}, outputs.at(view.positions)

  def settled(self, params):
    return params

  def settled_kept(self, kept, lengths):
    del lengths
    return kept


def of(architecture: base.Architecture) -> Cached | WholeText:
  """The model's cache if it has one, else the text."""
  if hasattr(architecture, "init_cache"):
    return Cached(architecture)
  return WholeText(architecture)


def can_branch(architecture: base.Architecture) -> bool:
  """Whether its memory holds texts that go on in several ways at once."""
  return hasattr(architecture, "init_cache") and hasattr(architecture, "moved")


def moved(
  architecture: Any,
  kept: types.PyTree,
  root: Int[Array, " B"],
  source: Int[Array, "B M"],
  target: Int[Array, "B M"],
) -> types.PyTree:
  """A memory that can branch, its nodes `source` where nodes `target` were.

  Targets that are negative are left out.
  """
  nowhere = jnp.iinfo(jnp.int32).max
  put = jnp.where(target < 0, nowhere, root[:, None] + target)
  taken = root[:, None] + jnp.maximum(source, 0)
  return architecture.moved(kept, taken, put)


def _logits(outputs: types.Outputs, last: jax.Array) -> jax.Array:
  return outputs.at(last[:, None]).logits[:, 0]
