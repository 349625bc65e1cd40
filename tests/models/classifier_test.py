# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.models import classifier

CONFIGS = {
  "mlp": classifier.MLPConfig(classes=5, shape=(6, 6), widths=(7, 9)),
  "conv": classifier.ConvConfig(classes=5, shape=(6, 6, 2), widths=(3, 4)),
  "deep conv": classifier.ConvConfig(shape=(4, 4, 1), widths=(2,) * 4),
}


@pytest.fixture(params=CONFIGS)
def config(request):
  return CONFIGS[request.param]


def images(config, count=3):
  inputs = jax.random.normal(jax.random.key(1), (count, *config.shape))
  return types.Examples(inputs, jnp.zeros(count, int), jnp.ones(count))


def run(config, params, view, want=()):
  return jax.jit(lambda p, v: config.bind(p)(v, want=want))(params, view)


def perceptron(params, x):
  outs, x = [], np.asarray(x, np.float64).reshape(len(x), -1)
  for i in range(len(params["layers"])):
    layer = jax.tree.map(np.float64, params["layers"][str(i)])
    x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
    outs.append(x)
  return outs, x


def convolutions(params, x):
  outs, x = [], np.asarray(x, np.float64)
  for i in range(len(params["layers"])):
    layer = jax.tree.map(np.float64, params["layers"][str(i)])
    height, width = x.shape[1:3]
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = layer["bias"] + sum(
      around[:, a : a + height, b : b + width] @ layer["kernel"][a, b]
      for a in range(3)
      for b in range(3)
    )
    x = np.maximum(x, 0)
    if min(height, width) >= 2:
      h, w = height // 2, width // 2
      x = x[:, : 2 * h, : 2 * w].reshape(len(x), h, 2, w, 2, -1)
      x = x.max(axis=(2, 4))
    outs.append(x)
  return outs, x.mean(axis=(1, 2))


def test_values_are_those_of_a_plain_computation(config):
  params = config.init(jax.random.key(0))
  # Biases start at zero, which would hide one that is left out.
  params = jax.tree.map(lambda p: p + 0.1, params)
  view = images(config)
  direct = (
    perceptron if isinstance(config, classifier.MLPConfig) else convolutions
  )
  outs, pooled = direct(params, view.inputs)
  want = (*(f"layers/{i}/out" for i in range(len(outs))), "pooled")
  outputs = run(config, params, view, want)
  close = {"rtol": 1e-4, "atol": 1e-5}
  for name, value in zip(want, [*outs, pooled], strict=True):
    np.testing.assert_allclose(outputs.features[name], value, **close)
  head = jax.tree.map(np.float64, params["head"])
  logits = pooled @ head["weight"].T + head["bias"]
  np.testing.assert_allclose(outputs.logits, logits, **close)
  np.testing.assert_allclose(outputs.hidden, pooled, **close)


def test_axes_fit_the_shapes(config):
  shapes = config.shapes()
  axes = config.axes()
  names = jax.tree.map(
    lambda shape, names: len(names) == shape.ndim, shapes, axes
  )
  assert jax.tree.all(names)
  assert axes["head"]["weight"] == ("vocab", "embed")
  chex.assert_trees_all_equal_shapes_and_dtypes(
    shapes, config.init(jax.random.key(0))
  )
  assert config.vocab_size == shapes["head"]["weight"].shape[0]


def test_every_parameter_gets_a_gradient(config):
  params = config.init(jax.random.key(0))
  view = images(config, 16)
  grads = jax.grad(lambda p: (config.bind(p)(view).logits ** 2).sum())(params)
  assert all(g.any() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: classifier.MLPConfig(classes=0), r"classes: found 0"),
    (lambda: classifier.MLPConfig(widths=()), r"widths: found \(\)"),
    (lambda: classifier.ConvConfig(shape=(8, 8)), r"shape: found \(8, 8\)"),
  ],
)
def test_impossible_sizes_are_refused(make, message):
  with pytest.raises(types.UserError, match=message):
    make()


def test_wrong_inputs_and_features_are_refused(config):
  model = config.bind(config.init(jax.random.key(0)))
  view = types.Examples(jnp.zeros((2, 5)), jnp.zeros(2, int), jnp.ones(2))
  with pytest.raises(types.UserError, match=r"found inputs of shape \(5,\)"):
    model(view)
  with pytest.raises(types.UserError, match="'layers/9/out' is not among"):
    model(images(config), want=("layers/9/out",))
