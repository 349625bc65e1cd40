# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jdistill.models import layers


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def gradients():
  """Of a bfloat16 product's kernel, its bias and its input; exact ones too."""
  x, d_y = (
    jnp.asarray(drawn(n, 512, width), jnp.bfloat16)
    for n, width in enumerate((16, 24))
  )
  module = layers.Linear(
    (1, 16, 24), ("layers", "embed", "mlp"), 1, nnx.Rngs(0), bias=True
  )
  graph, params = nnx.split(module)
  params = jax.tree.map(lambda p: p[0], params)

  def out(params, x):
    return nnx.merge(graph, params)(x)

  y, pull = jax.vjp(out, params, x)
  assert y.dtype == jnp.bfloat16
  d_params, d_x = pull(d_y)
  wide_x, wide_y = np.asarray(x, np.float64), np.asarray(d_y, np.float64)
  kernel = params["kernel"].get_value().astype(jnp.bfloat16)
  exact = {
    "kernel": wide_x.T @ wide_y,
    "bias": wide_y.sum(0),
    "x": wide_y @ np.asarray(kernel, np.float64).T,
  }
  found = {name: d_params[name].get_value() for name in ("kernel", "bias")}
  return {**found, "x": d_x}, exact


@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_gradients_of_float32_parameters_are_summed_in_float32(gradients, name):
  found, exact = (side[name] for side in gradients)
  assert found.dtype == jnp.float32
  error = np.abs(np.asarray(found, np.float64) - exact).max()
  assert error < 1e-5 * np.abs(exact).max()


def test_the_gradient_of_a_bfloat16_input_is_bfloat16(gradients):
  found, exact = (side["x"] for side in gradients)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    np.asarray(found, np.float64), exact, rtol=2**-7, atol=2**-6
  )


def test_a_product_of_one_dtype_is_the_plain_one():
  x, kernel = jnp.ones((4, 3)), jnp.ones((3, 2))
  assert "custom_vjp" not in str(jax.make_jaxpr(layers.product)(x, kernel))
