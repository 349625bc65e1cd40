# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jdistill import pretrained, types
from jdistill.models import DecoderConfig, Segment, weights

SMALL = DecoderConfig(
  vocab_size=32,
  width=16,
  mlp_width=24,
  num_heads=2,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment.uniform(2),),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp("models") / "small"
  params = jax.tree.map(lambda s: jnp.zeros(s.shape), SMALL.shapes())
  weights.save_huggingface(path, SMALL, params)
  return str(path)


def test_an_architecture_beside_a_reference_may_say_the_same(model):
  found = pretrained.find(model, architecture=SMALL)
  assert found.architecture.shapes() == SMALL.shapes()


def test_an_architecture_of_other_shapes_is_refused(model):
  other = dataclasses.replace(SMALL, mlp_width=32)
  with pytest.raises(types.UserError, match="other shapes") as refused:
    pretrained.find(model, architecture=other)
  assert model in str(refused.value)
