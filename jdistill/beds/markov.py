# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A Markov chain of any order as oracle: every distribution is known exactly.

The chain writes the data, stands in as a teacher (it is an `Architecture`), and
judges students: KL(oracle || student) per position, not estimated. A teacher
that errs is the same chain with `noise` above 0, mixed with another chain, so
that what it says and what is true are known apart ("proxy" and "golden"
distances).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.beds.documents import Bed, Document, Part
from jdistill.models import base

_MOST_ENTRIES = 1 << 25


@dataclasses.dataclass(frozen=True)
class MarkovChain(base.Architecture, Bed):
  """An order-k chain whose rows are drawn from a Dirichlet distribution.

  The distribution of the next token is
  `(1 - noise) * P[context] + noise * Q[context]`, both P and Q sharpened by
  `1 / temperature` and mixed with `floor` of the uniform distribution. At the
  start of a document, what is missing of the context counts as a symbol of its
  own. Parameters are the table of log-probabilities, "log_probs".

  Attributes:
    vocab_size: number of tokens.
    order: how many tokens the next one depends on.
    concentration: of the Dirichlet distribution; small ones give few likely
      successors.
    temperature: above 1 flattens the rows, below 1 sharpens them.
    floor: share of the uniform distribution, so that no probability is 0.
    noise: share of another chain, 0 for the oracle itself.
    seed: draws P.
    noise_seed: draws Q.
  """

  vocab_size: int = 16
  order: int = 1
  concentration: float = 0.3
  temperature: float = 1.0
  floor: float = 1e-3
  noise: float = 0.0
  seed: int = 0
  noise_seed: int = 1

  def __post_init__(self):
    least = {"vocab_size": 2, "order": 1}
    for field, low in least.items():
      if getattr(self, field) < low:
        raise _refused(self, field, f"at least {low}")
    for field in ("concentration", "temperature"):
      if not getattr(self, field) > 0:
        raise _refused(self, field, "a positive number")
    for field in ("floor", "noise"):
      if not 0 <= getattr(self, field) <= 1:
        raise _refused(self, field, "a number from 0 to 1")
    if self.num_contexts * self.vocab_size > _MOST_ENTRIES:
      raise types.UserError(
        f"MarkovChain: order={self.order} over vocab_size={self.vocab_size}"
        f" needs {self.num_contexts} rows of {self.vocab_size}; expected at"
        f" most {_MOST_ENTRIES} entries: lower either"
      )

  @property
  def num_contexts(self) -> int:
    return (self.vocab_size + 1) ** self.order

  @property
  def table(self) -> np.ndarray:
    """[contexts, V] float64 probabilities; see `contexts` for the rows."""
    return _table(self)

  def init(self, key: jax.Array) -> types.PyTree:
    """The table; the chain's own seed draws it, not `key`."""
    del key
    return {"log_probs": self._log_table()}

  def axes(self) -> types.PyTree:
    return {"log_probs": (None, "vocab")}

  def bind(self, params: types.PyTree) -> types.Model:
    def model(view: types.Tokens, want: tuple[str, ...] = ()) -> types.Outputs:
      if want:
        raise types.UserError(
          f"feature {want[0]!r}: a MarkovChain has no features"
        )
      rows = self.contexts(view.tokens, view.positions)
      head = types.IdentityHead(self.vocab_size)
      return types.Outputs(params["log_probs"][rows], head, {}, {})

    return model

  def contexts(
    self, tokens: Int[Array, "*B T"], positions: Int[Array, "*B T"]
  ) -> Int[Array, "*B T"]:
    """The row of the table for what follows each token.

    Args:
      tokens: ids.
      positions: from 0 in each document; no context reaches back beyond it.
    Returns: sum over i < order of `digit[i] * (V + 1) ** i`, digit i the token
      i places back, or V where the document had not begun.
    """
    length = tokens.shape[-1]
    rows = jnp.zeros_like(tokens)
    for back in range(self.order):
      before = [(0, 0)] * (tokens.ndim - 1) + [(back, 0)]
      digit = jnp.pad(tokens, before)[..., :length]
      digit = jnp.where(positions >= back, digit, self.vocab_size)
      rows = rows + digit * (self.vocab_size + 1) ** back
    return rows

  def log_probs(
    self, tokens: Int[Array, "*B T"], positions: Int[Array, "*B T"]
  ) -> Float[Array, "*B T V"]:
    """The exact distribution of what follows each token, in nats."""
    return self._log_table()[self.contexts(tokens, positions)]

  def golden_kl(
    self,
    logits: Float[Array, "*B T U"],
    tokens: Int[Array, "*B T"],
    positions: Int[Array, "*B T"],
  ) -> Float[Array, "*B T"]:
    """KL(this chain || model) at each position, in nats, exact.

    Args:
      logits: the model's, U >= V; mass that it puts on ids beyond the chain's
        counts against it.
      tokens: what it read.
      positions: from 0 in each document.
    Returns: unreduced; average over the view's mask.
    """
    if logits.shape[-1] < self.vocab_size:
      raise types.UserError(
        f"golden_kl: found logits over {logits.shape[-1]} ids, expected at"
        f" least the chain's {self.vocab_size}"
      )
    truth = self.log_probs(tokens, positions)
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    model = jax.nn.log_softmax(logits.astype(wide), axis=-1)
    model = model[..., : self.vocab_size]
    probs = jnp.exp(truth)
    # x log x without the 0 * -inf of a chain without a floor.
    terms = jnp.where(probs > 0, probs * (truth - model), 0.0)
    return terms.sum(-1)

  def documents(
    self, seed: int, num: int, part: Part = "train", *, length: int
  ) -> list[Document]:
    """Samples documents of `length` tokens.

    Document i depends on `seed`, `part` and i only, not on `num`.
    """
    return self.continuations([()] * num, seed=seed, part=part, length=length)

  def continuations(
    self,
    prompts: Sequence[Sequence[int] | np.ndarray],
    *,
    seed: int,
    length: int,
    part: Part = "train",
  ) -> list[Document]:
    """Documents that go on from prompts for `length` tokens more."""
    rows = np.array([self._context_after(prompt) for prompt in prompts], int)
    cumulative = self.table.cumsum(axis=1)
    cumulative[:, -1] = 1.0
    held = part == "heldout"
    draws = np.array(
      [
        np.random.default_rng([seed, i, int(held)]).random(length)
        for i in range(len(prompts))
      ]
    ).reshape(len(prompts), length)
    written = np.zeros((len(prompts), length), np.int32)
    for t in range(length):
      passed = cumulative[rows] <= draws[:, t, None]  # [B, V]
      written[:, t] = passed.sum(axis=1)
      rows = self._shifted(rows, written[:, t])
    return [
      Document(np.concatenate([np.asarray(p, np.int32), tail]), len(p))
      for p, tail in zip(prompts, written, strict=True)
    ]

  def _log_table(self) -> jax.Array:
    with np.errstate(divide="ignore"):
      return jnp.asarray(np.log(self.table), jnp.float32)

  def _shifted(self, rows: Any, tokens: Any) -> Any:
    return (rows * (self.vocab_size + 1) + tokens) % self.num_contexts

  def _context_after(self, prompt: Sequence[int] | np.ndarray) -> int:
    row = self.num_contexts - 1  # nothing but the start symbol
    for token in prompt:
      if not 0 <= token < self.vocab_size:
        raise types.UserError(
          f"MarkovChain: found token {token} in a prompt, expected 0 to"
          f" {self.vocab_size - 1}"
        )
      row = self._shifted(row, int(token))
    return row


def _refused(chain: MarkovChain, field: str, expected: str) -> types.UserError:
  return types.UserError(
    f"MarkovChain.{field}: found {getattr(chain, field)}, expected {expected}"
  )


@functools.lru_cache(maxsize=16)
def _table(chain: MarkovChain) -> np.ndarray:
  table = _drawn(chain, chain.seed)
  if chain.noise:
    other = _drawn(chain, chain.noise_seed)
    table = (1 - chain.noise) * table + chain.noise * other
  table.setflags(write=False)
  return table


def _drawn(chain: MarkovChain, seed: int) -> np.ndarray:
  """[contexts, V] rows of one chain, sharpened, with the floor."""
  size = (chain.num_contexts, chain.vocab_size)
  # In log space, log Gamma(a) = log Gamma(a + 1) + log(U) / a: small
  # concentrations underflow otherwise.
  rng = np.random.default_rng(seed)
  logs = np.log(rng.gamma(chain.concentration + 1, size=size))
  logs += np.log1p(-rng.random(size)) / chain.concentration
  logs /= chain.temperature
  probs = np.exp(logs - logs.max(axis=1, keepdims=True))
  probs /= probs.sum(axis=1, keepdims=True)
  return (1 - chain.floor) * probs + chain.floor / chain.vocab_size
