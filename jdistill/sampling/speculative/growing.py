# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Trees of guesses, asked of a draft depth by depth.

A draft's numbers are 0 for the root and 1 + (d - 1) * K + c for column c of
depth d, K nodes wide: the nodes that it continues. A guess is known by the
number of its parent and its rank among that parent's children.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.models.attention import Branches
from jdistill.sampling.speculative import verify
from jdistill.sampling.speculative.drafts import Draft, Nodes
from jdistill.sampling.speculative.tree import BestTree, Shape, Tree
from jdistill.sampling.speculative.verify import Guesses, Law


class Rows(NamedTuple):
  """What is the row's own in a block."""

  keys: jax.Array  # [B]
  token: jax.Array  # [B] the root, read by nobody yet
  root: jax.Array  # [B] its position
  alive: jax.Array  # [B] bool
  seen: jax.Array | None  # [B, V] bool, tokens of the text; for a penalty


class Drawn(NamedTuple):
  """Children of the nodes of one depth."""

  tokens: jax.Array  # [B, K, C]
  scores: jax.Array  # [B, K, C] log-probability from the root on
  probs: jax.Array | None  # [B, K, V] what they were drawn from


def numbers(shape: Shape) -> int:
  """How many nodes a draft continues at most, the root among them."""
  return 1 + (shape.depth - 1) * shape.width


def grow(
  shape: Shape,
  draft: Draft,
  params: types.PyTree,
  kept: types.PyTree,
  logits: Float[Array, "B V"],
  rows: Rows,
  law: Law,
  vocab_size: int,
) -> tuple[types.PyTree, Guesses]:
  """Guesses what follows the root of each row.

  Args:
    shape: of the trees.
    draft: whom to ask.
    params: its parameters.
    kept: what it remembers.
    logits: its, of what follows the root.
    rows: the rows.
    law: how tokens are drawn.
    vocab_size: the target's; the draft's further ids are never drawn.
  """
  width, batch = shape.width, len(rows.token)
  total = numbers(shape)
  depths = np.repeat(np.arange(shape.depth), [1] + [width] * (shape.depth - 1))
  depths = jnp.broadcast_to(jnp.asarray(depths, jnp.int32), (batch, total))
  chosen = law.greedy or isinstance(shape, BestTree)

  def drawn(logits, depth, scores, texts) -> Drawn:
    # Greedy guesses are the likeliest ones: only the order matters.
    probs = law.scores(_fit(logits, vocab_size), texts)
    probs = jax.nn.softmax(probs, axis=-1)
    if chosen:
      tokens = verify.largest(probs, shape.fan)
    else:
      noise = jax.vmap(verify.place_key)(rows.keys, rows.root + 1 + depth)
      tokens = jax.vmap(lambda p, key: verify.children(p, shape.fan, key))(
        probs, noise
      )
    found = jnp.log(jnp.take_along_axis(probs, tokens, 2))
    return Drawn(tokens, scores[..., None] + found, None if chosen else probs)

  def deeper(carry, depth):
    kept, before, seen, texts = carry
    parent, rank, there = _continued(shape, before, depth)
    guess = parent * shape.fan + rank  # among those of this depth
    first = 1 + (depth - 1) * width
    number = jnp.broadcast_to(first + jnp.arange(width), (batch, width))
    own = jax.nn.one_hot(number, total, dtype=bool)
    seen = jnp.take_along_axis(seen, parent[..., None], 1) | own
    number = jnp.where(there & rows.alive[:, None], number, -1)
    above = jnp.where(depth == 1, 0, first - width + parent)
    tokens = _among(before.tokens, guess)
    if texts is not None:
      texts = jnp.take_along_axis(texts, parent[..., None], 1)
      texts |= jax.nn.one_hot(tokens, vocab_size, dtype=bool)
    nodes = Nodes(
      tokens,
      above,
      Branches(number, rows.root, depths, seen),
      shape.is_chain,
    )
    kept, logits = draft.extend(params, kept, nodes)
    after = drawn(logits, depth, _among(before.scores, guess), texts)
    return (kept, after, seen, texts), (after, above * shape.fan + rank)

  texts = None if rows.seen is None else rows.seen[:, None]
  root = drawn(logits[:, None], 0, jnp.zeros((batch, 1), jnp.float32), texts)
  seen = jnp.zeros((batch, width, total), bool).at[..., 0].set(True)
  if texts is not None:
    texts = jnp.repeat(texts, width, axis=1)
  start = (kept, _beside(root, width), seen, texts)
  (kept, _, _, _), (rest, origins) = jax.lax.scan(
    deeper, start, jnp.arange(1, shape.depth)
  )
  below = jax.tree.map(
    lambda a, b: jnp.concatenate([a, _by_number(b)], 1), root, rest
  )
  if isinstance(shape, Tree):
    return kept, _all_of(shape, rows.token, below)
  return kept, _best_of(shape, rows.token, below, _by_number(origins), depths)


def _fit(logits: Float[Array, "*B V"], size: int) -> Float[Array, "*B U"]:
  """Logits over the target's ids: those that the draft lacks are impossible."""
  wide = jnp.promote_types(logits.dtype, jnp.float32)
  logits = logits[..., :size].astype(wide)
  missing = [(0, 0)] * (logits.ndim - 1) + [(0, size - logits.shape[-1])]
  return jnp.pad(logits, missing, constant_values=-jnp.inf)


def _beside(root: Drawn, width: int) -> Drawn:
  """The root's children as those of the first of `width` columns."""

  def pad(x, value):
    columns = [(0, 0), (0, width - 1), (0, 0)]
    return jnp.pad(x, columns, constant_values=value)

  probs = None if root.probs is None else pad(root.probs, 0)
  return Drawn(pad(root.tokens, 0), pad(root.scores, -jnp.inf), probs)


def _continued(shape: Shape, before: Drawn, depth: jax.Array):
  """Columns of parents, ranks, and whether they are there, each [B, K]."""
  batch = len(before.tokens)
  if isinstance(shape, Tree):
    inner = shape.inner
    return tuple(
      jnp.broadcast_to(jnp.asarray(table)[depth], (batch, shape.width))
      for table in (inner.parent, inner.rank, inner.there)
    )
  flat = before.scores.reshape(batch, -1)
  scores, at = jax.lax.top_k(flat, shape.width)
  return at // shape.fan, at % shape.fan, scores > -jnp.inf


def _among(values: jax.Array, guess: Int[Array, "B G"]) -> jax.Array:
  """Of values [B, K, C] those of these guesses, column * C + rank."""
  return jnp.take_along_axis(values.reshape(len(values), -1), guess, 1)


def _by_number(stacked: jax.Array) -> jax.Array:
  """[D, B, K, ...] as [B, D * K, ...]."""
  turned = jnp.moveaxis(stacked, 0, 1)
  return turned.reshape(len(turned), -1, *turned.shape[3:])


def _all_of(tree: Tree, root: Int[Array, " B"], below: Drawn) -> Guesses:
  """The guesses of a tree of fixed shape, out of all that were made."""
  batch = len(root)
  number = np.where(tree.depths > 0, 1 - tree.width, 0) + tree.width * (
    tree.depths
  )
  number = np.where(tree.inner.columns < 0, -1, number + tree.inner.columns)
  guess = number[np.asarray(tree.parents)] * tree.fan + tree.ranks[1:]
  tokens = below.tokens.reshape(batch, -1)[:, guess]

  def each(table: np.ndarray) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(table), (batch, *table.shape))

  return Guesses(
    jnp.concatenate([root[:, None], tokens], 1),
    each(tree.depths),
    each(tree.seen),
    each(tree.children),
    each(number.astype(np.int32)),
    below.probs,
  )


def _best_of(
  shape: BestTree,
  root: Int[Array, " B"],
  below: Drawn,
  origins: Int[Array, "B L"],
  depths: Int[Array, "B M"],
) -> Guesses:
  """The likeliest guesses; all that they hang from are likelier, or as likely.

  `origins` are the guesses, number of the parent * C + rank, that the draft's
  numbers from 1 on are.
  """
  batch = len(root)
  size, fan = shape.num_nodes, shape.fan
  scores = below.scores.reshape(batch, -1)
  # In their own order: by depth, and best first among a node's children.
  best = jnp.sort(jax.lax.top_k(scores, shape.guesses)[1], axis=1)
  above = best // fan
  origins = jnp.pad(origins, ((0, 0), (1, 0)), constant_values=-1)
  parent = jax.vmap(jnp.searchsorted)(
    best, jnp.take_along_axis(origins, above, 1)
  )
  parent = jnp.where(above == 0, 0, parent + 1)
  parent = jnp.pad(parent, ((0, 0), (1, 0)), constant_values=-1)  # [B, N]
  same = parent[:, :, None] == parent[:, None, :]
  rank = (same & jnp.tri(size, k=-1, dtype=bool)[None]).sum(2)
  children = jax.vmap(
    lambda p, r: jnp.full((size + 1, fan), -1).at[p, r].set(jnp.arange(size))
  )(parent, rank)  # the root hangs from row -1
  seen = jnp.broadcast_to(jnp.eye(size, dtype=bool), (batch, size, size))
  for _ in range(shape.depth):
    up = jnp.take_along_axis(seen, jnp.maximum(parent, 0)[..., None], 1)
    seen = seen | (up & (parent >= 0)[..., None])
  match = origins[:, None, :] == best[:, :, None]
  inner = jnp.where(match.any(2), match.argmax(2), -1)
  return Guesses(
    jnp.concatenate([root[:, None], _among(below.tokens, best)], 1),
    jnp.pad(jnp.take_along_axis(depths, above, 1) + 1, ((0, 0), (1, 0))),
    seen,
    children[:, :size].astype(jnp.int32),
    jnp.pad(inner, ((0, 0), (1, 0))).astype(jnp.int32),
    None,
  )
