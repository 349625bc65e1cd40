# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a model with experts."""

import jax
import jax.numpy as jnp

from jdistill import describe
from jdistill.models import DecoderConfig, Mixture, Segment, num_params, weights

SPARSE = DecoderConfig(
  vocab_size=32,
  width=16,
  mlp_width=24,
  num_heads=2,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment.uniform(1), Segment.uniform(2, sparse=True)),
  experts=Mixture(6, 2, 12),
  qk_norm=True,
)


def test_active_parameters_are_those_of_the_experts_that_a_token_takes(
  tmp_path,
):
  params = jax.tree.map(lambda s: jnp.zeros(s.shape), SPARSE.shapes())
  weights.save_huggingface(tmp_path / "model", SPARSE, params)
  found = describe.model(str(tmp_path / "model"))
  assert found["family"] == "qwen3_moe"
  assert (found["experts"], found["experts_per_token"]) == (6, 2)
  assert found["expert_width"] == 12
  assert found["parameters"] == num_params(params)
  # 4 of 6 experts idle in each of two layers, three matrices each.
  idle = 2 * 4 * 3 * 16 * 12
  assert found["active_parameters"] == num_params(params) - idle
