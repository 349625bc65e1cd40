# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which tensor of a file each parameter is, and how it is turned round.

Files keep matrices as [outputs, inputs] with heads flattened; parameters are
[inputs, outputs] with heads apart, stacked over layers.
"""

import abc
import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from jdistill import types
from jdistill.models.decoder import DecoderConfig

Format = Literal["huggingface", "gguf"]


@dataclasses.dataclass(frozen=True)
class Rule:
  """A parameter's name in either format.

  `num_in` axes of the parameter (layers aside) are inputs and lie last in the
  file; 0 for what is kept as it is. `{}` stands for the layer.
  """

  huggingface: str
  gguf: str
  num_in: int = 0


_RULES = {
  "embedding/weight": Rule("model.embed_tokens.weight", "token_embd.weight"),
  "norm/scale": Rule("model.norm.weight", "output_norm.weight"),
  "head/weight": Rule("lm_head.weight", "output.weight"),
  "attention_norm/scale": Rule("input_layernorm.weight", "attn_norm.weight"),
  "attention/q/kernel": Rule("self_attn.q_proj.weight", "attn_q.weight", 1),
  "attention/k/kernel": Rule("self_attn.k_proj.weight", "attn_k.weight", 1),
  "attention/v/kernel": Rule("self_attn.v_proj.weight", "attn_v.weight", 1),
  "attention/o/kernel": Rule(
    "self_attn.o_proj.weight", "attn_output.weight", 2
  ),
  "attention/q/bias": Rule("self_attn.q_proj.bias", "attn_q.bias"),
  "attention/k/bias": Rule("self_attn.k_proj.bias", "attn_k.bias"),
  "attention/v/bias": Rule("self_attn.v_proj.bias", "attn_v.bias"),
  "attention/q_norm/scale": Rule(
    "self_attn.q_norm.weight", "attn_q_norm.weight"
  ),
  "attention/k_norm/scale": Rule(
    "self_attn.k_norm.weight", "attn_k_norm.weight"
  ),
  "attention_post_norm/scale": Rule(
    "post_attention_layernorm.weight", "post_attention_norm.weight"
  ),
  "mlp_post_norm/scale": Rule(
    "post_feedforward_layernorm.weight", "post_ffw_norm.weight"
  ),
  "mlp/gate/kernel": Rule("mlp.gate_proj.weight", "ffn_gate.weight", 1),
  "mlp/up/kernel": Rule("mlp.up_proj.weight", "ffn_up.weight", 1),
  "mlp/down/kernel": Rule("mlp.down_proj.weight", "ffn_down.weight", 1),
}

# Where a layer has two norms to each branch, Hugging Face calls the second
# branch's first norm by another name.
_MLP_NORM = {
  True: Rule("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
  False: Rule("post_attention_layernorm.weight", "ffn_norm.weight"),
}


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A parameter: its path, its shape, and the tensors that it is made of."""

  path: tuple[str, ...]
  shape: tuple[int, ...]
  stacked: bool
  tensors: tuple[str, ...]  # one a layer, or one
  num_in: int

  @property
  def key(self) -> str:
    """The path without the segment."""
    return "/".join(self.path[1:] if self.stacked else self.path)

  @property
  def inner(self) -> tuple[int, ...]:
    """The shape of one layer of it."""
    return self.shape[1:] if self.stacked else self.shape

  @property
  def layer_size(self) -> int:
    """The number of values of one layer of it."""
    return math.prod(self.inner)

  @property
  def file_shape(self) -> tuple[int, ...]:
    """The shape of each of its tensors in a file."""
    if self.num_in:
      outputs, inputs = self.inner[self.num_in :], self.inner[: self.num_in]
      return (math.prod(outputs), math.prod(inputs))
    if self.key in ("embedding/weight", "head/weight"):
      return self.inner
    return (math.prod(self.inner),)


def leaves(config: DecoderConfig, file_format: Format) -> list[Leaf]:
  """All parameters of a model, the largest first.

  The order keeps the memory of a load low: room for a copy of the largest
  parameter is needed while nothing else is there yet.
  """
  found = []
  for path, shape in walk(config.shapes()):
    stacked = path[0].startswith("segment_")
    key = "/".join(path[1:] if stacked else path)
    rule = _MLP_NORM[config.post_norms] if key == "mlp_norm/scale" else None
    rule = rule or _RULES[key]
    name = getattr(rule, file_format)
    if stacked:
      prefix = "model.layers." if file_format == "huggingface" else "blk."
      first = config.offsets[int(path[0].removeprefix("segment_"))]
      numbers = range(first, first + shape.shape[0])
      names = tuple(f"{prefix}{n}.{name}" for n in numbers)
    else:
      names = (name,)
    found.append(Leaf(path, shape.shape, stacked, names, rule.num_in))
  return sorted(found, key=lambda leaf: -math.prod(leaf.shape))


def walk(
  tree: types.PyTree, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], types.PyTree]]:
  """The leaves of a nested dict, each with its path."""
  if not isinstance(tree, dict):
    yield path, tree
    return
  for key, child in tree.items():
    yield from walk(child, (*path, key))


class Source(abc.ABC):
  """A file, or several, to read tensors from."""

  format: Format
  location: str
  config: DecoderConfig
  shapes: dict[str, tuple[int, ...]]

  @abc.abstractmethod
  def read(self, tensor: str, rows: slice) -> np.ndarray:
    """Some rows of a tensor in the file's layout, as some float dtype."""

  @abc.abstractmethod
  def mend(self, leaf: Leaf, values: np.ndarray) -> np.ndarray:
    """Undoes what the format does to a parameter's values.

    `values` is [outputs..., inputs...] for kernels, axes apart.
    """


def read_layer(
  source: Source, leaf: Leaf, tensor: str, index: tuple[slice, ...]
) -> np.ndarray:
  """One layer of a parameter, or the part of it that `index` names."""
  num_in, inner = leaf.num_in, leaf.inner
  bounds = [range(*s.indices(n)) for s, n in zip(index, inner, strict=True)]
  order = [*range(num_in, len(inner)), *range(num_in)]  # as in the file
  row_axes = order[: len(inner) - num_in] if num_in else [0]
  if not num_in and len(leaf.file_shape) == 1:
    row_axes = list(range(len(inner)))
  # The first row axis is cut while reading, the others afterwards.
  first = bounds[row_axes[0]]
  step = math.prod(inner[axis] for axis in row_axes[1:])
  raw = source.read(tensor, slice(first.start * step, first.stop * step))
  shape = [inner[axis] for axis in order]
  shape[0] = len(first)
  values = source.mend(leaf, raw.reshape(shape))
  cut = [slice(bounds[a].start, bounds[a].stop) for a in order]
  cut[0] = slice(None)
  values = values[tuple(cut)]
  back = [order.index(axis) for axis in range(len(inner))]
  return values.transpose(back)


def file_values(leaf: Leaf, values: np.ndarray) -> np.ndarray:
  """One layer of a parameter with axes in the file's order, still apart."""
  num_in = leaf.num_in
  return values.transpose([*range(num_in, values.ndim), *range(num_in)])
