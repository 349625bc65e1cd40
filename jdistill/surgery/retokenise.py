# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Students that read another vocabulary than the model they come from."""

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import types


def retokenise(
  params: types.PyTree, ids: np.ndarray, weights: np.ndarray
) -> types.PyTree:
  """The model with new tokens: each is a weighted mean of some it had.

  The embedding changes, and the head where it is a matrix of its own; all else
  is handed on as it is.

  Args:
    params: of a decoder.
    ids: [V, K] old tokens of each new one.
    weights: [V, K] that sum to 1; where all are 0, the new token is the mean of
      all old ones.
  References: Gee et al., 2022, arXiv:2402.09977 (FVT).
  """

  def new(table: jax.Array) -> jax.Array:
    none = weights.sum(1) == 0
    found = jnp.where(none[:, None], table.mean(0, keepdims=True), 0)
    for k in range(ids.shape[1]):  # [V, K, D] would be many times the table
      found = found + weights[:, k, None].astype(table.dtype) * table[ids[:, k]]
    return found.astype(table.dtype)

  found = {"embedding": {"weight": new(params["embedding"]["weight"])}}
  if "head" in params:
    found["head"] = {"weight": new(params["head"]["weight"])}
  return {**params, **found}
