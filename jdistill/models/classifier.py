# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Small image classifiers in Flax NNX: perceptron and convolutions.

Sized for digits, MNIST and the like. The last layer is handed out as a head on
the pooled activations, so losses may treat `[B, D]` states and a `[classes, D]`
head like those of a language model.

Features: "layers/i/out" is what layer i hands on (after its nonlinearity), and
"pooled" is what the head reads.
"""

import abc
import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jdistill import types
from jdistill.models import base, nnx_trees


class Readout(nnx.Module):
  """The map from pooled activations to logits, weight [classes, D]."""

  def __init__(self, width: int, classes: int, *, rngs: nnx.Rngs):
    draw = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", -1, -2)
    self.weight = nnx.Param(
      draw(rngs.params(), (classes, width), jnp.float32),
      out_sharding=("vocab", "embed"),
    )
    self.bias = nnx.Param(jnp.zeros(classes), out_sharding=("vocab",))

  def __call__(self) -> types.Head:
    return types.Head(self.weight.get_value(), self.bias.get_value())


def _linear(width_in: int, width: int, rngs: nnx.Rngs) -> nnx.Linear:
  named = nnx.with_partitioning
  return nnx.Linear(
    width_in,
    width,
    kernel_init=named(nnx.initializers.he_normal(), ("embed", "mlp")),
    bias_init=named(nnx.initializers.zeros_init(), ("mlp",)),
    rngs=rngs,
  )


def _conv(width_in: int, width: int, rngs: nnx.Rngs) -> nnx.Conv:
  named = nnx.with_partitioning
  axes = (None, None, "embed", "mlp")
  return nnx.Conv(
    width_in,
    width,
    kernel_size=(3, 3),
    kernel_init=named(nnx.initializers.he_normal(), axes),
    bias_init=named(nnx.initializers.zeros_init(), ("mlp",)),
    rngs=rngs,
  )


class MLP(nnx.Module):
  """Fully connected layers with ReLU over flattened inputs."""

  def __init__(self, config: "MLPConfig", *, rngs: nnx.Rngs):
    widths = (math.prod(config.shape), *config.widths)
    self.layers = nnx.List(
      _linear(a, b, rngs) for a, b in itertools.pairwise(widths)
    )
    self.head = Readout(widths[-1], config.classes, rngs=rngs)

  def __call__(self, inputs: jax.Array) -> list[jax.Array]:
    x = inputs.reshape(inputs.shape[0], -1)  # [B, D]
    outs = []
    for layer in self.layers:
      x = jax.nn.relu(layer(x))
      outs.append(x)
    return [*outs, x]


class Conv(nnx.Module):
  """3x3 convolutions with ReLU and 2x2 max pooling, then a global mean."""

  def __init__(self, config: "ConvConfig", *, rngs: nnx.Rngs):
    widths = (config.shape[-1], *config.widths)
    self.layers = nnx.List(
      _conv(a, b, rngs) for a, b in itertools.pairwise(widths)
    )
    self.head = Readout(widths[-1], config.classes, rngs=rngs)

  def __call__(self, inputs: jax.Array) -> list[jax.Array]:
    x, outs = inputs, []
    for layer in self.layers:
      x = jax.nn.relu(layer(x))
      if min(x.shape[1:3]) >= 2:
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
      outs.append(x)  # [B, H, W, D]
    return [*outs, x.mean(axis=(1, 2))]


@dataclasses.dataclass(frozen=True)
class _Classifier(base.Architecture):
  classes: int = 10
  shape: tuple[int, ...] = (28, 28, 1)
  widths: tuple[int, ...] = (256, 256)

  def __post_init__(self):
    object.__setattr__(self, "shape", tuple(self.shape))
    object.__setattr__(self, "widths", tuple(self.widths))
    sizes = {"classes": (self.classes,), "shape": self.shape}
    for field, values in {**sizes, "widths": self.widths}.items():
      if not values or min(values) < 1:
        raise types.UserError(
          f"{type(self).__name__}.{field}: found {getattr(self, field)},"
          " expected sizes of at least 1"
        )

  @abc.abstractmethod
  def module(self, rngs: nnx.Rngs) -> nnx.Module:
    """Builds the module with fresh parameters."""

  @property
  def vocab_size(self) -> int:
    return self.classes

  def init(self, key: jax.Array) -> types.PyTree:
    return nnx_trees.init(_maker(self), key)["params"]

  def axes(self) -> types.PyTree:
    return nnx_trees.axes(_maker(self))["params"]

  def bind(self, params: types.PyTree) -> types.Model:
    def model(
      view: types.Examples, want: tuple[str, ...] = ()
    ) -> types.Outputs:
      inputs = self._checked(view.inputs)
      module: Any = nnx_trees.build(_maker(self), {"params": params})
      *outs, pooled = module(inputs)
      offered = {f"layers/{i}/out": out for i, out in enumerate(outs)}
      offered["pooled"] = pooled
      unknown = sorted(set(want) - set(offered))
      if unknown:
        raise types.UserError(
          f"feature {unknown[0]!r} is not among those of"
          f" {type(self).__name__}: {', '.join(offered)}"
        )
      features = {name: offered[name] for name in want}
      return types.Outputs(pooled, module.head(), features, {})

    return model

  def _checked(self, inputs: jax.Array) -> jax.Array:
    if inputs.shape[1:] != self.shape:
      raise types.UserError(
        f"{type(self).__name__}: found inputs of shape {inputs.shape[1:]} per"
        f" example, expected {self.shape} (its field shape)"
      )
    return inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))


@dataclasses.dataclass(frozen=True)
class MLPConfig(_Classifier):
  """Fully connected: flattened input, `widths` with ReLU, `classes` logits.

  Inputs are [B, *shape], numbers of about unit size.
  """

  def module(self, rngs: nnx.Rngs) -> nnx.Module:
    return MLP(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ConvConfig(_Classifier):
  """Convolutional: per layer 3x3, ReLU, 2x2 max pooling; mean; `classes`.

  Inputs are [B, height, width, channels], numbers of about unit size. Pooling
  stops when a side is down to one pixel.
  """

  widths: tuple[int, ...] = (32, 64)

  def __post_init__(self):
    super().__post_init__()
    if len(self.shape) != 3:
      raise types.UserError(
        f"ConvConfig.shape: found {self.shape}, expected (height, width,"
        " channels)"
      )

  def module(self, rngs: nnx.Rngs) -> nnx.Module:
    return Conv(self, rngs=rngs)


@functools.lru_cache(maxsize=256)
def _maker(config: _Classifier):
  # One function per configuration, so that its structure is found only once.
  return config.module
