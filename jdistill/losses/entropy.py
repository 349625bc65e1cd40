# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Cross entropies, and weights for the tokens of a loss."""

import jax
import jax.numpy as jnp

from jdistill.losses.pairs import compute_dtype
from jdistill.types import Ids, Logits, Nats


def _is_target(logits, targets):
  ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  return ids == targets[..., None]


@jax.custom_vjp
def _cross_entropy(logits, targets):
  return _cross_entropy_fwd(logits, targets)[0]


def _cross_entropy_fwd(logits, targets):
  z = logits.astype(compute_dtype(logits))
  top = jnp.max(z, axis=-1, keepdims=True)
  top = jnp.where(top == -jnp.inf, 0, top)
  log_sum = jnp.log(jnp.sum(jnp.exp(z - top), axis=-1, keepdims=True))
  hit = _is_target(logits, targets)
  at_target = jnp.sum(jnp.where(hit, z - top, 0), axis=-1)
  value = log_sum[..., 0] - at_target
  in_range = (targets >= 0) & (targets < logits.shape[-1])
  value = jnp.where(in_range, value, jnp.nan)
  return value, (logits, targets, top, log_sum)


def _cross_entropy_bwd(residuals, cotangent):
  logits, targets, top, log_sum = residuals
  q = jnp.exp(logits.astype(top.dtype) - top - log_sum)
  hit = _is_target(logits, targets)
  grad = cotangent[..., None] * jnp.where(hit, q - 1, q)
  return grad.astype(logits.dtype), None


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


@jax.jit
def cross_entropy(logits: Logits, targets: Ids) -> Nats:
  """-log q(target), in nats per position."""
  return _cross_entropy(logits, targets)
