# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Frozen kernels kept as int8, with a float32 scale for each output channel.

A quantised kernel is a `qwix.QArray` in the place of the array: `qvalue` int8
[L, *inputs, *outputs] and `scale` [L, 1, ..., *outputs], so that every layer,
every expert and, where heads are outputs, every head has scales of its own.
Rounding moves a weight by at most half its scale. Inside the layer scan one
layer at a time is turned back into floats. Embeddings, heads, norms, biases and
routers are bfloat16.

qwix is imported where it is used: most runs need none of it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.models import host

REST = "bfloat16"
"""What the parameters that are no kernels are kept in."""


def quantise(
  kernel: jax.Array, inputs: tuple[int, ...], places: Any = None
) -> Any:
  """A stack of kernels as int8.

  Args:
    kernel: [L, *inputs, *outputs], of any float dtype.
    inputs: which of its axes are inputs.
    places: a QArray of shardings to put it on, or None.
  Returns: a qwix.QArray.
  """
  import qwix

  own = tuple(axis for axis in range(kernel.ndim) if axis not in inputs)

  def turn(kernel):
    kernel = host.fetched(kernel).astype(jnp.float32)
    return qwix.quantize(kernel, jnp.int8, channelwise_axes=own)

  return jax.jit(turn, out_shardings=places)(kernel)


def tree(
  params: types.PyTree, inputs: types.PyTree, places: types.PyTree = None
) -> types.PyTree:
  """A decoder's parameters with int8 kernels, one after another.

  Args:
    params: floats; emptied on the way, so that no more than one is there twice.
    inputs: for each parameter its input axes, () for what is no kernel.
    places: a sharding for each array of the result, or None.
  """
  if isinstance(inputs, dict):
    return {
      key: tree(
        params.pop(key), inputs[key], None if places is None else places[key]
      )
      for key in inputs
    }
  if not inputs:
    return params.astype(REST)
  kernel = quantise(params, inputs, places)
  if places is not None:
    # Float kernels must not pile up behind a queue of conversions.
    jax.block_until_ready(kernel)
  return kernel


def axes(names: tuple[str | None, ...], inputs: tuple[int, ...]) -> Any:
  """The logical axes of a quantised kernel, from those of the kernel."""
  import qwix

  alone: Any = tuple(
    None if axis in inputs else name for axis, name in enumerate(names)
  )
  whole: Any = names
  return qwix.QArray(whole, alone, qtype=jnp.int8)


def dense(kernel: Any, dtype: Any) -> jax.Array:
  """One layer's kernel as floats: an int8 one in `dtype`, others as is."""
  if not hasattr(kernel, "qvalue"):
    return kernel
  import qwix

  return qwix.dequantize(kernel).astype(dtype)
