# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Models whose distributions are known, or of which few tokens are likely."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.models import base
from jdistill.models.decoder import DecoderConfig
from jdistill.models.feature_draft import FeatureDraft
from jdistill.models.rope import Rope
from jdistill.models.spec import Segment
from jdistill.sampling import speculative


@dataclasses.dataclass(frozen=True)
class Bigram(base.Architecture):
  """The next token depends on the last one alone; remembers nothing.

  Parameters are `log_probs` [V, V], so any law can be set. What it need not
  remember it can remember of trees as well.
  """

  size: int

  @property
  def vocab_size(self):
    return self.size

  def init(self, key):
    return {"log_probs": jax.random.normal(key, (self.size, self.size))}

  def axes(self):
    return {"log_probs": (None, None)}

  def init_cache(self, batch, length, dtype="float32"):
    del batch, length, dtype
    return {}

  def moved(self, cache, source, target):
    del source, target
    return cache

  def bind(self, params):
    def model(view, want=(), cache=None, branches=None):
      del want, branches
      head = types.IdentityHead(self.size)
      hidden = params["log_probs"][view.tokens]
      return types.Outputs(hidden, head, {}, {"cache": cache})

    return model


LM = DecoderConfig(
  vocab_size=23,
  width=16,
  mlp_width=24,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment(windows=(0, 5), ropes=(0, 0)),),
  ropes=(Rope(theta=100.0),),
  attention_soft_cap=5.0,
  final_soft_cap=8.0,
)


@pytest.fixture(scope="session")
def bigram():
  return Bigram(4)


@pytest.fixture(scope="session")
def lm():
  """A decoder with a sliding window and soft caps, and its parameters."""
  drawn = jax.jit(LM.init)(jax.random.key(0))
  # Large weights, so that the likeliest token depends on the text.
  return LM, jax.tree.map(lambda p: 3 * p if p.ndim > 2 else p, drawn)


@pytest.fixture(scope="session")
def pair():
  """A bigram model with its parameters, and those of a draft like it."""
  arch = Bigram(23)
  params = arch.init(jax.random.key(0))
  noise = arch.init(jax.random.key(1))
  return (arch, params), jax.tree.map(lambda p, n: p + 0.5 * n, params, noise)


@pytest.fixture(scope="session")
def near(lm):
  """The same decoder's parameters with some noise: right now and then."""
  noise = jax.random.key(3)
  return jax.tree.map(
    lambda p: p + 0.02 * jax.random.normal(noise, p.shape), lm[1]
  )


@pytest.fixture(scope="session")
def tables():
  """Laws [4, 4] of a target and of drafts, by name."""
  rng = np.random.default_rng(0)
  target = rng.dirichlet(np.ones(4) * 0.7, 4) * 0.9
  # Token 3 never follows 0 or 1, tokens 0 and 1 never follow 2.
  target[:2, 3] = 0
  target[2, :2] = 0
  good = target + 0.05
  found = {
    "target": target,
    "same": target,
    "good": good,
    "bad": rng.dirichlet(np.ones(4) * 0.3, 4) + 1e-4,
    # Sure of what the target finds impossible, or unlikely.
    "disjoint": np.eye(4)[[3, 3, 0, int(target[3].argmin())]],
  }
  return {k: p / p.sum(1, keepdims=True) for k, p in found.items()}


@pytest.fixture(scope="session")
def as_params():
  def log(table):
    with np.errstate(divide="ignore"):
      return {"log_probs": jnp.asarray(np.log(table), jnp.float32)}

  return log


@pytest.fixture(scope="session")
def feature_draft():
  """`feature_draft(target, params)`: a draft of it and the draft's parameters.

  It has two layers, one with a window, and all of FSPAD.
  """

  def made(target, params):
    shape = FeatureDraft(
      vocab_size=target.vocab_size,
      width=target.width,
      mlp_width=24,
      num_heads=4,
      num_kv_heads=2,
      head_dim=8,
      segments=(Segment(windows=(0, 4), ropes=(0, 0)),),
      ropes=target.ropes,
      sampling=2,
      unaligned=8,
    )
    own = jax.jit(shape.init)(jax.random.key(2))
    own = jax.tree.map(lambda p: 2 * p if p.ndim > 2 else p, own)
    draft = speculative.FeatureDraft(shape)
    return draft, draft.params(own, target, params)

  return made
