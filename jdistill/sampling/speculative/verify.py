# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drawing guesses, and accepting them so that the target's law comes out.

Guesses under one node are drawn from the draft's q without replacement. They
are asked in turn: with p the target's law there, guess x is accepted with
probability min(1, p(x) / q(x)); if it is not, p becomes the normalised
max(p - q, 0), and q loses x. When none is left, the next token is drawn from
p. With one guess per node that is the usual rule; each turn hands p on exactly,
so what is written follows the target's law whatever the draft. Guesses that
were chosen, not drawn, are the same with q(x) = 1. Temperature and truncation
make p and q before anything is compared, and at temperature 0 all mass of p is
on its likeliest token: then what is written is what greedy decoding writes.

References: Leviathan et al., 2023, arXiv:2211.17192; Chen et al., 2023,
arXiv:2302.01318; several guesses: Miao et al., 2024, arXiv:2305.09781, and
without replacement Jeon et al., 2024, arXiv:2402.14160.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdistill import types
from jdistill.sampling import draw

# Noise of one place in one row's text, apart from each other.
_CHILDREN, _LAST, _ASK = 0, 1, 2

Numbers: TypeAlias = Mapping[str, types.Scalar]
"""`Sampling.numbers()`; without a temperature nothing is drawn."""


class Law(NamedTuple):
  """What a token is drawn from."""

  top_k: int | None  # static
  numbers: Numbers

  @property
  def greedy(self) -> bool:
    return "temperature" not in self.numbers

  @property
  def penalises(self) -> bool:
    """Whether it asks which tokens a text has."""
    return "repetition_penalty" in self.numbers

  def scores(
    self, logits: Float[Array, "*B V"], seen: Bool[Array, "*B V"] | None
  ) -> Float[Array, "*B V"]:
    """Logits of the distribution, float32; the largest is the greedy token.

    Args:
      logits: of a model.
      seen: tokens of the text before; not needed without a penalty.
    """
    size = logits.shape[-1]
    flat = logits.reshape(-1, size).astype(jnp.float32)
    flat_seen = None if seen is None else seen.reshape(-1, size)
    found = draw.law(flat, flat_seen, self.top_k, self.numbers)
    return found.reshape(logits.shape)

  def probs(
    self, logits: Float[Array, "*B V"], seen: Bool[Array, "*B V"] | None
  ) -> Float[Array, "*B V"]:
    """The distribution, float32."""
    scores = self.scores(logits, seen)
    if not self.greedy:
      return jax.nn.softmax(scores, axis=-1)
    size = logits.shape[-1]
    tokens, _ = draw.best(scores.reshape(-1, size))
    return jax.nn.one_hot(tokens, size).reshape(logits.shape)


class Guesses(NamedTuple):
  """A tree of guesses for each row, node 0 its root.

  Nodes are in order of depth, children of a node in the order in which they
  are asked.
  """

  tokens: jax.Array  # [B, N]
  depths: jax.Array  # [B, N]
  seen: jax.Array  # [B, N, N] bool; a node's ancestors and itself
  children: jax.Array  # [B, N, C] -1 where there are fewer
  inner: jax.Array  # [B, N] the draft's number of nodes with children, or -1
  probs: jax.Array | None  # [B, M, V] by that number; None: chosen, not drawn


class Verdict(NamedTuple):
  """What became of each row's guesses; D is the depth of the deepest."""

  path: jax.Array  # [B, D+1] accepted nodes from the root, then -1
  accepted: jax.Array  # [B] how many guesses
  token: jax.Array  # [B] what follows them
  asked: jax.Array  # [B, D] bool; whether a guess was asked at depth 1 .. D
  overlap: jax.Array  # [B, D+1] sum of min(p, q) at each node of the path
  close: jax.Array  # [B, D+1] bool; whether p's likeliest token is in doubt


def place_key(key: jax.Array, place: jax.Array) -> jax.Array:
  """The noise of a place in a row's text, whatever the block it falls in."""
  return jax.random.fold_in(key, place)


def drawn(law: Law, probs: Float[Array, " V"], key: jax.Array) -> jax.Array:
  """One token; `key` is of its place."""
  if law.greedy:
    return draw.best(probs[None])[0][0]
  key = jax.random.fold_in(key, _LAST)
  return jax.random.categorical(key, jnp.log(probs)).astype(jnp.int32)


def children(
  probs: Float[Array, "K V"], count: int, key: jax.Array
) -> Int[Array, "K C"]:
  """Draws `count` tokens without replacement from each of K distributions.

  The K share their noise: at most one of them is where the text goes on.
  Tokens of probability 0 are at the end, where there are too few others.
  """
  noise = jax.random.gumbel(
    jax.random.fold_in(key, _CHILDREN), probs.shape[1:], probs.dtype
  )
  return largest(jnp.log(probs) + noise[None], count)


def largest(scores: Float[Array, "*B V"], count: int) -> Int[Array, "*B C"]:
  """The tokens of the `count` largest scores, in order."""
  if count > 1:
    return jax.lax.top_k(scores, count)[1]
  flat = scores.reshape(-1, scores.shape[-1])
  return draw.best(flat)[0].reshape(*scores.shape[:-1], 1)


def walk(
  law: Law,
  guesses: Guesses,
  logits: Float[Array, "B N V"],
  depth: int,
  keys: jax.Array,
  root: Int[Array, " B"],
  lenience: Float[Array, ""],
  seen: Bool[Array, "B V"] | None,
) -> Verdict:
  """Asks each row's guesses, from the root down until none is accepted.

  Args:
    law: makes p of the target's logits; q came from the same.
    guesses: the trees.
    logits: of the target, of what follows each node.
    depth: of the deepest node.
    keys: [B] of the rows.
    root: the root's position.
    lenience: multiplies q where a guess is asked; 1 is exact.
    seen: tokens of the texts, their roots included; for a penalty.
  """

  def one(guesses, logits, key, root, seen):
    return _walk(law, guesses, logits, depth, key, root, lenience, seen)

  return jax.vmap(one)(guesses, logits, keys, root, seen)


def _walk(law, guesses, logits, depth, key, root, lenience, seen):
  """One row's walk; see `walk`."""
  size = logits.shape[-1]

  def step(carry, below):
    node, going, last, seen = carry
    noise = place_key(key, root + 1 + below)
    p = law.probs(logits[node], seen)
    known = None if seen is None else seen[None]
    _, lead = draw.best(draw.penalised(logits[node][None], known, law.numbers))
    q = None
    if guesses.probs is not None:
      q = guesses.probs[jnp.maximum(guesses.inner[node], 0)]
    found = jnp.int32(-1)
    asked, overlap = jnp.bool_(False), jnp.zeros((), p.dtype)
    for rank in range(guesses.children.shape[1]):
      child = guesses.children[node, rank]
      x = guesses.tokens[child]
      here = jax.nn.one_hot(x, size, dtype=p.dtype) if q is None else q
      if rank == 0:
        overlap = jnp.minimum(p, here).sum()
      ask = going & (child >= 0) & (found < 0) & (here[x] > 0)
      u = jax.random.uniform(jax.random.fold_in(noise, _ASK + rank))
      yes = ask & (u * lenience * here[x] < p[x])
      no = ask & ~yes
      asked, found = asked | ask, jnp.where(yes, child, found)
      p = jnp.where(no, _rest(p, here), p)
      q = None if q is None else jnp.where(no, _without(q, x), q)
    stops = going & (found < 0)
    last = jnp.where(stops, p, last)
    if seen is not None:  # of a guess that is there; else nobody asks again
      seen = seen.at[guesses.tokens[found]].set(True)
    carry = (found, going & ~stops, last, seen)
    out = jnp.where(going, node, -1), asked, overlap, lead[0] < draw.CLOSE
    return carry, out

  start = (jnp.int32(0), jnp.bool_(True), jnp.zeros_like(logits[0]), seen)
  (_, _, last, _), (path, asked, overlap, close) = jax.lax.scan(
    step, start, jnp.arange(depth + 1)
  )
  accepted = (path >= 0).sum() - 1
  token = drawn(law, last, place_key(key, root + 1 + accepted))
  return Verdict(path, accepted, token, asked[:-1], overlap, close)


def _rest(p: jax.Array, q: jax.Array) -> jax.Array:
  """What is left for the target once a guess from q was refused."""
  rest = jnp.maximum(p - q, 0)
  total = rest.sum()
  # Nothing is left where p = q, up to rounding: then nothing is refused.
  return jnp.where(total > 0, rest / jnp.where(total > 0, total, 1), p)


def _without(q: jax.Array, x: jax.Array) -> jax.Array:
  """q given that it is not x; zeros if it is nothing else."""
  rest = q.at[x].set(0)
  total = rest.sum()
  return rest / jnp.where(total > 0, total, 1)
