# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The load-balancing loss through the step, against NumPy and transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import methods, step, types
from jdistill.models import FunctionArchitecture

B, T, LAYERS, EXPERTS, TAKEN = 4, 6, 3, 5, 2
RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(B, T, LAYERS, EXPERTS))
REAL = np.arange(T) < np.array([6, 4, 1, 0])[:, None]


class Routers(FunctionArchitecture):
  """A student that is nothing but its routers' logits, one for each token."""

  def bind(self, params):
    def model(view, want=()):
      logits = params["logits"][view.tokens]
      probs = jax.nn.softmax(logits)
      found = {
        "router/probs": probs,
        "router/taken": jax.lax.top_k(probs, TAKEN)[1],
      }
      hidden = jnp.zeros((*view.tokens.shape, 1))
      head = types.Head(jnp.zeros((2, 1)))
      return types.Outputs(hidden, head, {n: found[n] for n in want}, {})

    return model


STUDENT = Routers(
  apply=lambda params, tokens: tokens,
  make=lambda key: {"logits": jnp.zeros((B * T, LAYERS, EXPERTS))},
  kind="tokens",
  shape=(T,),
)


def batch():
  tokens = jnp.arange(B * T).reshape(B, T)
  places = jnp.broadcast_to(jnp.arange(T), (B, T))
  view = types.Tokens(
    tokens, tokens, jnp.zeros((B, T)), places, jnp.asarray(REAL, jnp.int32)
  )
  return types.Batch({"student": view}, {}, jnp.arange(B))


@functools.cache
def run(method, microbatches=1):
  gradient = step.make_gradient(STUDENT, {}, method, microbatches=microbatches)
  table = LOGITS.reshape(-1, LAYERS, EXPERTS)
  params = {"student": {"logits": jnp.asarray(table, jnp.float32)}}
  grads, loss = jax.jit(gradient)(
    {**params, "method": {}}, {}, batch(), jnp.int32(0)
  )
  slope = np.asarray(grads["student"]["logits"]).reshape(LOGITS.shape)
  return float(loss.total), slope, loss.metrics


def softmax(z):
  z = np.exp(z - z.max(-1, keepdims=True))
  return z / z.sum(-1, keepdims=True)


def loads_and_probs():
  """Of each layer, [L, E], over real tokens."""
  probs = softmax(LOGITS)
  rank = np.argsort(np.argsort(-probs, axis=-1), axis=-1)
  return (rank < TAKEN)[REAL].mean(0), probs[REAL].mean(0)


def expected(over):
  loads, probs = loads_and_probs()
  if over == "model":
    loads, probs = (a.mean(0, keepdims=True) for a in (loads, probs))
  return EXPERTS * (loads * probs).sum(-1).mean()


each_way = pytest.mark.parametrize("over", ["layer", "model"])


@each_way
@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_value_and_gradient(over, microbatches):
  value, slope, metrics = run(methods.RouterBalance(over), microbatches)
  np.testing.assert_allclose(value, expected(over), rtol=1e-6)
  mean = metrics["balance"]
  np.testing.assert_allclose(mean.sum / mean.weight, value, rtol=1e-6)
  # d/dz of E / L sum_le f_le mean_t softmax(z_tl)_e, where f stands still.
  loads, _ = loads_and_probs()
  if over == "model":
    loads = np.broadcast_to(loads.mean(0), loads.shape)
  probs = softmax(LOGITS)
  inner = (probs * loads).sum(-1, keepdims=True)
  want = EXPERTS / LAYERS * probs * (loads - inner) / REAL.sum()
  want = want * REAL[..., None, None]
  np.testing.assert_allclose(slope, want, atol=1e-7)


def test_equal_loads_are_worth_the_number_taken():
  """Random routers are near it, and ones that agree far above."""
  values = [expected(over) for over in ("layer", "model")]
  assert values[0] > values[1] >= 0.9 * TAKEN


def test_examples_are_refused():
  view = types.Examples(jnp.zeros((B, 3)), jnp.zeros(B, int), jnp.ones(B))
  with pytest.raises(types.UserError, match="expected text"):
    methods.RouterBalance().norms(
      types.Batch({"student": view}, {}, jnp.arange(B))
    )


@pytest.mark.slow
def test_transformers_counts_the_same():
  torch = pytest.importorskip("torch")
  from transformers.models.qwen3_moe import modeling_qwen3_moe

  logits = torch.from_numpy(LOGITS).reshape(B * T, LAYERS, EXPERTS)
  found = modeling_qwen3_moe.load_balancing_loss_func(
    tuple(logits[:, layer] for layer in range(LAYERS)),
    EXPERTS,
    TAKEN,
    torch.from_numpy(REAL.astype(np.int64)),
  )
  value, _, _ = run(methods.RouterBalance("model"))
  np.testing.assert_allclose(value, float(found), rtol=1e-6)
