# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts that go on from their target's features: EAGLE and FSPAD.

At token t the model reads h, the target's hidden state at the token before, and
e, the target's embedding of token t, and guesses the target's hidden state at
t; the target's own head makes it logits:

    s = h + W_d (silu(W_g e) * W_u h)     with `sampling`, else s = h
    u = layers(W [s, e] + b)
    f = the first D of u                  the guess, which the next step reads
    logits = head(f)
    logits = head(sg(f) + W_o u)          with `unaligned`

It owns neither embedding nor head. Parameters, beside those of its layers, of
width D + `unaligned`:

    fc/kernel [2 D, D + A]   fc/bias [D + A]
    sampling/gate/kernel [D, R D]   (up too)   sampling/down/kernel [R D, D]
    read_out/kernel [D + A, D]

References: EAGLE, Li et al., 2024, arXiv:2401.15077, of whose code the order of
the sum is, its first layer not normalising what it receives; `input_norm` of
SpecVLM's EagleVLM, Huang et al., 2025, arXiv:2509.11815. FSPAD, Gui et al.,
2024, arXiv:2408.15562, whose feature sampling (`sampling`) and partial
alignment (`unaligned`) are reconstructed from its abstract.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jdistill import types
from jdistill.models import division, stack
from jdistill.models.attention import Branches
from jdistill.models.base import Architecture
from jdistill.models.layers import Linear
from jdistill.models.spec import LayerSpec, Segment

GUESS = "guess"
"""The feature [B, T, D] that is like the target's hidden states."""

_SALT = 0x66656174  # keeps this noise apart from a method's
_NOISE_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class FeatureDraft(LayerSpec, Architecture):
  """A draft without parameters; `width` and `vocab_size` are its target's.

  The target is the teacher named "teacher".

  Attributes:
    vocab_size: ids that the target's head tells apart.
    segments: the layers, in EAGLE a single one.
    input_norm: whether the first segment normalises what it receives, as all
      others do.
    sampling: R, how many times as wide as the features the space is in which
      the token picks what matters of them; 0 is EAGLE.
    unaligned: A, further dimensions that need not be like the target's; 0 is
      EAGLE.
    noise: features heard in training are off by up to noise / 2 times 512 over
      the length of the document, evenly distributed, as what the draft hears
      when it guesses are guesses of its own.
  """

  vocab_size: int = 49_152
  segments: tuple[Segment, ...] = (Segment.uniform(1),)
  input_norm: bool = False
  sampling: int = 0
  unaligned: int = 0
  noise: float = 0.2

  def __post_init__(self):
    super().__post_init__()
    if self.vocab_size < 1:
      raise types.UserError(
        f"vocab_size is {self.vocab_size}; expected at least 1"
      )
    for field in ("sampling", "unaligned", "noise"):
      if getattr(self, field) < 0:
        raise types.UserError(
          f"{field} is {getattr(self, field)}; expected 0 or more"
        )

  @property
  def hears(self) -> str:
    return "teacher"

  @property
  def layers(self) -> LayerSpec:
    """Those of the draft, as wide as they are."""
    names = [field.name for field in dataclasses.fields(LayerSpec)]
    fields = {name: getattr(self, name) for name in names}
    return LayerSpec(**fields | {"width": self.width + self.unaligned})

  def init(self, key: jax.Array) -> types.PyTree:
    model = Draft(self, nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.split(model)[1])

  def axes(self) -> types.PyTree:
    return _abstract(self)[1]

  def bind(self, params: types.PyTree) -> "Draft":
    return nnx.merge(_abstract(self)[0], params)

  def for_evaluation(self) -> "FeatureDraft":
    return dataclasses.replace(self, noise=0.0)

  def check(self, width: int, vocab_size: int) -> None:
    """Refuses a target of other sizes.

    Raises: UserError that names both.
    """
    if (width, vocab_size) != (self.width, self.vocab_size):
      raise types.UserError(
        f"a FeatureDraft of width {self.width} and vocab_size "
        f"{self.vocab_size} cannot go by a target of width {width} and "
        f"vocab_size {vocab_size}; they must be the same"
      )


@functools.lru_cache(maxsize=64)
def _abstract(config: FeatureDraft) -> tuple[Any, types.PyTree]:
  """The graph of a model without arrays, and its logical axes."""
  model = nnx.eval_shape(lambda: Draft(config, nnx.Rngs(params=0)))
  graph, state = nnx.split(model)

  def names(tree):
    if isinstance(tree, nnx.Variable):
      return tree.get_metadata()["axes"]
    return {key: names(child) for key, child in tree.items()}

  return graph, names(state)


class FeatureSampling(nnx.Module):
  """Features of which a token picks what matters, in a wider space."""

  def __init__(self, config: FeatureDraft, rngs: nnx.Rngs):
    wide = (config.width, config.sampling * config.width)
    axes = ("embed", "mlp")
    self.gate = Linear(wide, axes, 1, rngs, stacked=0)
    self.up = Linear(wide, axes, 1, rngs, stacked=0)
    self.down = Linear(wide[::-1], axes[::-1], 1, rngs, stacked=0)

  def __call__(
    self, features: Float[Array, "B T D"], embedded: Float[Array, "B T D"]
  ) -> Float[Array, "B T D"]:
    picked = jax.nn.silu(self.gate(embedded)) * self.up(features)
    return features + self.down(picked)


class Guess(NamedTuple):
  """What a draft makes of some tokens."""

  hidden: jax.Array  # [B, T, D] for the head
  feature: jax.Array  # [B, T, D] like the target's hidden states
  cache: types.PyTree


class Draft(stack.Layers):
  """A draft with its parameters."""

  def __init__(self, config: FeatureDraft, rngs: nnx.Rngs):
    self.config = config
    layers, width = config.layers, config.width
    self.sampling = FeatureSampling(config, rngs) if config.sampling else None
    shape, axes = (2 * width, layers.width), ("embed", None)
    self.fc = Linear(shape, axes, 1, rngs, stacked=0, bias=True)
    super().__init__(layers, rngs)
    first: Any = self
    if not config.input_norm:
      first.segment_0.attention_norm = None
    read_out = (layers.width, width), axes, 1, rngs
    self.read_out = Linear(*read_out, stacked=0) if config.unaligned else None

  def __call__(
    self,
    view: types.Tokens,
    want: Sequence[str] = (),
    heard: types.Outputs | None = None,
    keys: jax.Array | None = None,
  ) -> types.Outputs:
    """Guesses at each token of what the target says there itself.

    Args:
      view: the text.
      want: "guess", or nothing.
      heard: the target's outputs of the same view, with the feature "embed".
      keys: [B] of the rows, for the noise; None hears without.
    Raises:
      UserError: for features that it does not have, for a target of other
        sizes, and where there is none.
    """
    unknown = [name for name in want if name != GUESS]
    if unknown:
      raise types.UserError(
        f"a FeatureDraft has no feature {unknown[0]!r}; it has {GUESS}"
      )
    if heard is None:
      raise types.UserError(
        "a FeatureDraft goes by what its target says of the same text and says "
        "nothing by itself; it can be a draft: jdistill generate TARGET "
        "--draft RUN, or jdistill speculate TARGET RUN"
      )
    features = heard.hidden
    self.config.check(features.shape[-1], heard.head.vocab_size)
    if keys is not None and self.config.noise:
      features = features + self._noise(view, keys).astype(features.dtype)
    found = self.guess(before(view, features), heard.features["embed"], view)
    features = {name: found.feature for name in want}
    return types.Outputs(found.hidden, heard.head, features, {})

  def guess(
    self,
    features: Float[Array, "B T D"],
    embedded: Float[Array, "B T D"],
    view: types.Tokens,
    cache: types.PyTree | None = None,
    branches: Branches | None = None,
  ) -> Guess:
    """The same from features at the tokens before.

    Args:
      features: of the target, or guesses of them; zeros where nothing is
        before.
      embedded: the target's embeddings of the tokens.
      view: where they are in their texts.
      cache: of `stack.empty_cache(config.layers, ...)` or an earlier call.
      branches: with a cache, where the tokens are in texts that branch.
    """
    dtype = jnp.dtype(self.config.dtype)
    features, embedded = features.astype(dtype), embedded.astype(dtype)
    if self.sampling is not None:
      features = self.sampling(features, embedded)
    x = self.fc(jnp.concatenate([features, embedded], axis=-1))
    if cache is None:
      x = division.divided(x)
    x, _, cache = self.through(x, view, {}, cache, branches)
    feature = x[..., : self.config.width]
    hidden = feature
    if self.read_out is not None:
      hidden = jax.lax.stop_gradient(feature) + self.read_out(x)
    return Guess(hidden, feature, cache)

  def _noise(
    self, view: types.Tokens, keys: jax.Array
  ) -> Float[Array, "B T D"]:
    same = view.segment_ids[:, :, None] == view.segment_ids[:, None, :]
    length = same.sum(-1)  # of each token's document
    shape = (view.tokens.shape[1], self.config.width)

    def draw(key):
      key = jax.random.fold_in(key, _SALT)
      return jax.random.uniform(key, shape, minval=-0.5, maxval=0.5)

    scale = self.config.noise * _NOISE_LENGTH / length
    return jax.vmap(draw)(keys) * scale[..., None]


def before(
  view: types.Tokens, features: Float[Array, "B T D"]
) -> Float[Array, "B T D"]:
  """At each token what is at the one before; zeros at a document's first."""
  moved = jnp.pad(features[:, :-1], ((0, 0), (1, 0), (0, 0)))
  return jnp.where(view.positions[..., None] > 0, moved, 0)
