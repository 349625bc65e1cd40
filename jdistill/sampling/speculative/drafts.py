# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What guesses the next tokens for a target to judge."""

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.models.attention import Branches
from jdistill.models.base import Architecture
from jdistill.sampling import memory


class News(NamedTuple):
  """Tokens that became certain, each with what the target made of the text.

  `hidden[b, t]` is the target's hidden state, after its final norm, at the
  token before `view.tokens[b, t]`: what the target drew that token from. The
  first token of a text has zeros.
  """

  view: types.Tokens  # [B, T] segment 0 is not there
  hidden: jax.Array  # [B, T, D]
  last: jax.Array  # [B] where in T a row's newest token is
  root: jax.Array  # [B] position before the first of them


class Nodes(NamedTuple):
  """Guesses that are to be continued, all of one depth.

  Their numbers, `branches.nodes`, are from 1; 0 is the root, which is the
  newest certain token, and negative ones are not there. In a chain a guess's
  number is its depth.
  """

  tokens: jax.Array  # [B, K]
  parents: jax.Array  # [B, K] numbers
  branches: Branches
  chain: bool  # static


@runtime_checkable
class Draft(Protocol):
  """Proposes continuations; hashable, its parameters apart.

  For every block of guesses it is asked once for what follows the text
  (`settle`), and then depth by depth for what follows its own guesses
  (`extend`). It answers with logits only; the tokens are drawn from them by
  who asks, who alone answers for exactness.

  `ModelDraft` is another language model, `FeatureDraft` one that goes on from
  the target's own features.
  """

  @property
  def vocab_size(self) -> int:
    """Number of logits; may differ from the target's."""
    ...

  def can_branch(self) -> bool:
    """Whether guesses may be more than one chain."""
    ...

  def settled(self, params: types.PyTree) -> types.PyTree:
    """The parameters in a form in which few tokens are read faster."""
    ...

  def empty(
    self, params: types.PyTree, batch: int, length: int, hidden: Any
  ) -> types.PyTree:
    """Remembers nothing, with room for texts and guesses of `length`.

    `hidden` is the ShapeDtypeStruct [B, T, D] of the target's states.
    """
    ...

  def read(
    self, params: types.PyTree, kept: types.PyTree, news: News
  ) -> types.PyTree:
    """Reads the beginning of the texts."""
    ...

  def settle(
    self,
    params: types.PyTree,
    kept: types.PyTree,
    news: News,
    path: Int[Array, "B D"] | None,
  ) -> tuple[types.PyTree, Float[Array, "B V"]]:
    """Goes on with what came true of the last guesses.

    Args:
      params: its parameters.
      kept: what it remembers.
      news: tokens since the last root; all but the newest are guesses that
        came true.
      path: their numbers, negative for those that were never continued and
        behind the end; None for chains.
    Returns: what it remembers, and logits of what follows the newest token.
    """
    ...

  def extend(
    self, params: types.PyTree, kept: types.PyTree, nodes: Nodes
  ) -> tuple[types.PyTree, Float[Array, "B K V"]]:
    """What follows these guesses."""
    ...


@dataclasses.dataclass(frozen=True)
class ModelDraft:
  """A language model as draft; it does not look at the target's states.

  What it read of guesses that came true it need not read again: of a block it
  reads the last two tokens at most, as the last guess of a path was drawn but
  never continued.
  """

  architecture: Architecture

  @property
  def vocab_size(self) -> int:
    return self.architecture.vocab_size

  def can_branch(self) -> bool:
    return memory.can_branch(self.architecture)

  def settled(self, params):
    return memory.of(self.architecture).settled(params)

  def empty(self, params, batch, length, hidden):
    del hidden
    return memory.of(self.architecture).empty(params, batch, length)

  def read(self, params, kept, news):
    view = self._within(news.view)
    kept, _ = memory.of(self.architecture).read(params, kept, view, news.last)
    return kept

  def settle(self, params, kept, news, path):
    store = memory.of(self.architecture)
    if path is not None:
      depth = jnp.arange(1, path.shape[1] + 1)[None]
      depth = jnp.where(path < 0, -1, depth)
      kept = memory.moved(self.architecture, kept, news.root, path, depth)
    at = news.last[:, None] + jnp.array([[-1, 0]])  # [B, 2]
    two = jax.tree.map(
      lambda x: jnp.take_along_axis(x, jnp.maximum(at, 0), 1), news.view
    )
    there = jnp.where(at < 0, 0, two.segment_ids)
    two = dataclasses.replace(two, segment_ids=there)
    last = jnp.ones_like(news.last)
    return store.read(params, kept, self._within(two), last)

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
    store = memory.of(self.architecture)
    kept, outputs = store.read_all(
      params, kept, self._within(view), None if nodes.chain else branches
    )
    return kept, outputs.logits

  def _within(self, view: types.Tokens) -> types.Tokens:
    """Ids that the target alone has are read as the draft's last one."""
    tokens = jnp.minimum(view.tokens, self.vocab_size - 1)
    return dataclasses.replace(view, tokens=tokens)
