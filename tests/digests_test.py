# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers for the content of arrays."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jdistill import digests, sharding

DTYPES = ["float32", "bfloat16", "int32", "int8", "uint32", "bool"]


def drawn(dtype):
  bits = np.random.default_rng(0).integers(0, 2, (8, 6))
  values = np.random.default_rng(0).normal(0, 40, (8, 6))
  return (bits if dtype == "bool" else values).astype(dtype)


def reference(x):
  size = x.dtype.itemsize
  flat = x.reshape(-1).view(f"uint{8 * size}").astype(object)
  return sum(int(v) * (2 * i + 1) for i, v in enumerate(flat)) % 2**32


@pytest.mark.parametrize("dtype", DTYPES)
def test_by_hand(dtype):
  x = drawn(getattr(ml_dtypes, dtype, dtype))
  assert digests.of({"a": {"b": x}}) == {"a/b": reference(x)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_flipped_bit_counts(dtype):
  x = drawn(getattr(ml_dtypes, dtype, dtype))
  seen = {digests.of([x])["0"]}
  bits = 1 if dtype == "bool" else 8 * x.dtype.itemsize
  for bit in range(bits):
    changed = x.copy()
    view = changed.view(f"uint{8 * x.dtype.itemsize}")
    view[3, 2] ^= view.dtype.type(1 << bit)
    seen.add(digests.of([changed])["0"])
  assert len(seen) == bits + 1


def test_two_places_exchanged():
  x = np.arange(6.0, dtype=np.float32)
  assert digests.of([x]) != digests.of([x[::-1].copy()])


def test_the_same_on_any_mesh():
  x = drawn("float32")
  mesh = sharding.make_mesh(sharding.MeshShape(2, 2, 2))
  for spec in [(), ("data",), (("data", "fsdp"), "tensor"), (None, "tensor")]:
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    assert digests.of([placed]) == {"0": reference(x)}


def test_keys_and_scalars():
  key = jax.random.key(3)
  found = digests.of({"key": key, "step": jnp.int32(7)})
  assert found == {"key": reference(np.asarray(jax.random.key_data(key))),
                   "step": 7}  # fmt: skip
