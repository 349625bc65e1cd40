# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts that go on from what the target made of the text, as EAGLE does."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.models import feature_draft, stack
from jdistill.models.decoder import DecoderConfig


@dataclasses.dataclass(frozen=True)
class FeatureDraft:
  """A `jdistill.models.FeatureDraft` as draft of its target.

  It hears the target's features of all that came true, and its own guesses of
  them below the newest token. Parameters are from `params`.
  """

  architecture: feature_draft.FeatureDraft

  @property
  def vocab_size(self) -> int:
    return self.architecture.vocab_size

  def params(
    self, own: types.PyTree, target: DecoderConfig, target_params: types.PyTree
  ) -> types.PyTree:
    """Its own parameters beside the target's table and head, not copied.

    Raises: UserError for a target of other sizes than the draft was made for.
    """
    self.architecture.check(target.width, target.vocab_size)
    return {"own": own, "ends": target.ends(target_params)}

  def can_branch(self) -> bool:
    return True

  def settled(self, params):
    return params

  def empty(self, params, batch, length, hidden):
    """Keys and values by place, and guesses [B, length, D] by node."""
    del params
    own = self.architecture
    cache = stack.empty_cache(own.layers, batch, length, own.dtype)
    guesses = jnp.zeros((batch, length, own.width), hidden.dtype)
    return {"cache": cache, "guesses": guesses}

  def read(self, params, kept, news):
    kept, _ = self._said(params, kept, news.hidden, news.view)
    return kept

  def settle(self, params, kept, news, path):
    del path  # guesses that came true are read again, from true features
    kept, said = self._said(params, kept, news.hidden, news.view)
    hidden, root = (
      jnp.take_along_axis(x, news.last[:, None, None], 1)
      for x in (said.hidden, said.feature)
    )
    guesses = kept["guesses"].at[:, :1].set(root.astype(news.hidden.dtype))
    return kept | {"guesses": guesses}, params["ends"].head(hidden)[:, 0]

  def extend(self, params, kept, nodes):
    branches = nodes.branches
    there = branches.nodes >= 0
    view = types.Tokens(
      tokens=nodes.tokens,
      targets=jnp.zeros_like(nodes.tokens),
      mask=there.astype(jnp.float32),
      positions=branches.positions,
      segment_ids=there.astype(jnp.int32),
    )
    guesses = kept["guesses"]
    above = jnp.take_along_axis(guesses, nodes.parents[..., None], 1)
    kept, said = self._said(
      params, kept, above, view, None if nodes.chain else branches
    )
    put = jnp.where(there, branches.nodes, guesses.shape[1])
    write = jax.vmap(lambda row, at, new: row.at[at].set(new, mode="drop"))
    guesses = write(guesses, put, said.feature.astype(guesses.dtype))
    return kept | {"guesses": guesses}, params["ends"].head(said.hidden)

  def _said(
    self,
    params: Any,
    kept: Any,
    features: jax.Array,
    view: types.Tokens,
    branches: Any = None,
  ) -> tuple[Any, feature_draft.Guess]:
    said = self.architecture.bind(params["own"]).guess(
      features,
      params["ends"].embed(view.tokens),
      view,
      kept["cache"],
      branches,
    )
    return kept | {"cache": said.cache}, said
