# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, in the rotate-half layout."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Rope:
  """How positions become angles.

  `linear` divides every frequency by `factor`. `llama3` divides the slow ones
  (fewer than `low_freq_factor` turns within `original_length` positions),
  keeps the fast ones (more than `high_freq_factor` turns) and blends between.
  """

  theta: float = 10_000.0
  scaling: Literal["none", "linear", "llama3"] = "none"
  factor: float = 1.0
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_length: int = 8192

  def frequencies(self, head_dim: int) -> np.ndarray:
    """Radians per position, [head_dim / 2] float32."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    plain = self.theta**-exponents
    if self.scaling == "none":
      return plain.astype(np.float32)
    if self.scaling == "linear":
      return (plain / self.factor).astype(np.float32)
    turns = self.original_length * plain / (2 * math.pi)
    span = self.high_freq_factor - self.low_freq_factor
    keep = np.clip((turns - self.low_freq_factor) / span, 0.0, 1.0)
    return (plain * (keep + (1 - keep) / self.factor)).astype(np.float32)


def angles(
  ropes: tuple[Rope, ...], positions: Int[Array, "B T"], head_dim: int
) -> tuple[Float[Array, "N B T F"], Float[Array, "N B T F"]]:
  """Cosines and sines for each of N ropes, float32; F is half the head."""
  table = np.stack([rope.frequencies(head_dim) for rope in ropes])  # [N, F]
  turned = (
    positions[None, :, :, None].astype(jnp.float32) * table[:, None, None, :]
  )
  return jnp.cos(turned), jnp.sin(turned)


def rotate(
  x: Float[Array, "B T H Dh"],
  cos: Float[Array, "B T F"],
  sin: Float[Array, "B T F"],
) -> Float[Array, "B T H Dh"]:
  """Turns pairs (i, i + Dh/2) of every head by its angle, in float32."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  first, second = jnp.split(wide, 2, axis=-1)
  cos, sin = cos[:, :, None, :], sin[:, :, None, :]
  turned = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return jax.lax.convert_element_type(turned, x.dtype)
