# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Documents of several Markov chains, one each, not told which."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.beds.documents import Bed, Document, Part
from jdistill.beds.markov import MarkovChain
from jdistill.models.base import Architecture


@dataclasses.dataclass(frozen=True)
class ChainMixture(Bed, Architecture):
  """A bed whose next token depends on which chain wrote the document.

  All chains are equally likely; the exact law of the next token weighs what
  each says by how likely it makes the document so far. A model has to find the
  chain out, which takes a look at all the text, before it can use it. As a
  model it is the truth. Parameters are the chains' tables, "log_probs"
  [K, contexts, V].

  Attributes:
    chain: one of them.
    num_chains: how many there are; they differ in their seeds, which count up
      from that of `chain`.
  """

  chain: MarkovChain = dataclasses.field(default_factory=MarkovChain)
  num_chains: int = 8

  def __post_init__(self):
    if self.num_chains < 1:
      raise types.UserError(
        f"ChainMixture.num_chains: found {self.num_chains}, expected at least 1"
      )

  @property
  def vocab_size(self) -> int:
    return self.chain.vocab_size

  @functools.cached_property
  def chains(self) -> tuple[MarkovChain, ...]:
    return tuple(
      dataclasses.replace(self.chain, seed=self.chain.seed + k)
      for k in range(self.num_chains)
    )

  def documents(
    self, seed: int, num: int, part: Part = "train", *, length: int
  ) -> list[Document]:
    """Samples documents of `length` tokens; see `Bed.documents`."""
    held = int(part == "heldout")
    written = [
      chain.documents(seed, num, part, length=length) for chain in self.chains
    ]
    return [
      written[
        np.random.default_rng([seed, i, held, 1]).integers(self.num_chains)
      ][i]
      for i in range(num)
    ]

  def init(self, key: jax.Array) -> types.PyTree:
    """The tables; the chains' own seeds draw them, not `key`."""
    tables = [chain.init(key)["log_probs"] for chain in self.chains]
    return {"log_probs": jnp.stack(tables)}

  def axes(self) -> types.PyTree:
    return {"log_probs": (None, None, "vocab")}

  def bind(self, params: types.PyTree) -> types.Model:
    def model(view: types.Tokens, want: tuple[str, ...] = ()) -> types.Outputs:
      if want:
        raise types.UserError(
          f"feature {want[0]!r}: a ChainMixture has no features"
        )
      said = self._law(params["log_probs"], view.tokens, view.positions)
      return types.Outputs(said, types.IdentityHead(self.vocab_size), {}, {})

    return model

  def log_probs(
    self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
  ) -> Float[Array, "B T V"]:
    """The exact distribution of what follows each token, in nats."""
    tables = self.init(jax.random.key(0))["log_probs"]
    return self._law(tables, tokens, positions)

  def _law(self, tables, tokens, positions):
    after = tables[:, self.chain.contexts(tokens, positions)]  # [K, B, T, V]
    begin = jnp.broadcast_to(tables[:, -1, None, None], (*after.shape[:2], 1,
                             after.shape[3]))  # fmt: skip
    before = jnp.concatenate([begin, after[:, :, :-1]], axis=2)
    before = jnp.where(positions[None, ..., None] > 0, before, begin)
    ids = jnp.broadcast_to(tokens[None, ..., None], (*after.shape[:3], 1))
    found = jnp.take_along_axis(before, ids, axis=3)[..., 0]  # [K, B, T]
    total = jnp.cumsum(found, axis=2)
    first = jnp.arange(tokens.shape[1])[None] - positions
    first = jnp.broadcast_to(first[None], total.shape)
    total = total - jnp.take_along_axis(total - found, first, axis=2)
    weights = jax.nn.log_softmax(total, axis=0)
    return jax.nn.logsumexp(weights[..., None] + after, axis=0)
