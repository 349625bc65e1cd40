# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Inner activations by name, kept by the layer scan only where asked for.

`embed` [B, T, D]; `layers/N/in`, `layers/N/out` and the branches as they are
added to the residual, `layers/N/attn` and `layers/N/mlp`, each [B, T, D];
`attn/N/probs` [B, H, T, S]; `pooled` [B, D], the mean of the final hidden
states over the mask. Layers count from 0 over the whole model. Where layers
have experts, `router/N/probs` [B, T, E] and the numbers of those that are taken
`router/N/taken` [B, T, K]; of all such layers together `router/probs`
[B, T, layers, E] and `router/taken`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill.types import UserError

KINDS = {
  "in": "layers/{}/in",
  "attn": "layers/{}/attn",
  "mlp": "layers/{}/mlp",
  "out": "layers/{}/out",
  "probs": "attn/{}/probs",
  "router": "router/{}/probs",
  "taken": "router/{}/taken",
}
"""What a layer can hand out, and the name of it."""

ROUTERS = {"router/probs": "router", "router/taken": "taken"}
"""What all layers with experts say, and the kind it is in each."""


def parse(
  want: Sequence[str], sparse: Sequence[bool]
) -> dict[str, tuple[int, ...]]:
  """For each kind of layer feature in `want`, the layers asked for, in order.

  Args:
    want: names of features.
    sparse: for each layer of the model whether it has experts.

  Raises:
    UserError: a name that no decoder has, or a layer that this one lacks.
  """
  found: dict[str, set[int]] = {}
  num_layers, experts = len(sparse), {n for n, s in enumerate(sparse) if s}
  for name in want:
    if name in ROUTERS and experts:
      found.setdefault(ROUTERS[name], set()).update(experts)
      continue
    if name in ("embed", "pooled"):
      continue
    digits = name.split("/")[1] if name.count("/") == 2 else ""
    layer = int(digits) if digits.isdecimal() else -1
    kind = next((k for k, v in KINDS.items() if v.format(layer) == name), None)
    if kind is None:
      known = ["embed", "pooled", *(v.format("N") for v in KINDS.values())]
      known = [k for k in known if experts or not k.startswith("router")]
      known += ROUTERS if experts else []
      raise UserError(
        f"a decoder has no feature {name!r}; it has {', '.join(known)}"
      )
    if layer >= num_layers:
      raise UserError(
        f"feature {name!r}: the model has {num_layers} layers, counted from 0"
      )
    if kind in ROUTERS.values() and layer not in experts:
      raise UserError(
        f"feature {name!r}: layer {layer} has no experts; those with are"
        f" {sorted(experts) or 'none'}"
      )
    found.setdefault(kind, set()).add(layer)
  return {kind: tuple(sorted(layers)) for kind, layers in found.items()}


class Taps:
  """Room for the wanted features of one segment's layers.

  A buffer has a row for each wanted layer and one more, where the others
  write: the scan's body is then the same for every layer, and only wanted
  activations stay alive.
  """

  def __init__(
    self, wanted: Mapping[str, tuple[int, ...]], offset: int, num_layers: int
  ):
    inside = range(offset, offset + num_layers)
    chosen = {k: [n for n in v if n in inside] for k, v in wanted.items()}
    self.layers = {kind: layers for kind, layers in chosen.items() if layers}
    self.rows = {
      kind: np.asarray(
        [layers.index(n) if n in layers else len(layers) for n in inside],
        np.int32,
      )
      for kind, layers in self.layers.items()
    }

  def buffers(
    self, shapes: Mapping[str, jax.ShapeDtypeStruct]
  ) -> dict[str, jax.Array]:
    """Empty buffers for values of these shapes."""
    return {
      kind: jnp.zeros(
        (len(layers) + 1, *shapes[kind].shape), shapes[kind].dtype
      )
      for kind, layers in self.layers.items()
    }

  def features(self, buffers: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The filled buffers, or lists of what would be in them, by public name."""
    named = {}
    for kind, layers in self.layers.items():
      for row, layer in enumerate(layers):
        value = buffers[kind][row]
        if kind == "probs":
          value = _by_head(value)
        named[KINDS[kind].format(layer)] = value
    return named


def routers(
  found: Mapping[str, jax.Array], sparse: Sequence[bool], kind: str
) -> jax.Array:
  """One of `ROUTERS` from the features of the layers."""
  names = [KINDS[kind].format(n) for n, s in enumerate(sparse) if s]
  return jnp.stack([found[name] for name in names], axis=2)


def record(
  buffers: Mapping[str, jax.Array],
  values: Mapping[str, jax.Array],
  rows: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
  """The buffers with one layer's values written to its rows."""
  return {
    kind: jax.lax.dynamic_update_index_in_dim(
      buffer, values[kind], rows[kind], axis=0
    )
    for kind, buffer in buffers.items()
  }


def _by_head(probs: jax.Array) -> jax.Array:
  """[B, N, T, G, S] to [B, H, T, S]."""
  batch, kv_heads, length, groups, keys = probs.shape
  probs = jnp.swapaxes(probs, 2, 3)
  return probs.reshape(batch, kv_heads * groups, length, keys)
