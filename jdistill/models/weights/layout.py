# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which tensor of a file each parameter is, and how it is turned round.

Files keep matrices as [outputs, inputs] with heads flattened; parameters are
[inputs, outputs] with heads apart, stacked over layers.
"""

import abc
import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from jdistill import types
from jdistill.models.decoder import DecoderConfig

Format = Literal["huggingface", "gguf"]


@dataclasses.dataclass(frozen=True)
class Rule:
  """A parameter's name in either format.

  `num_in` axes of the parameter (layers and experts aside) are inputs and lie
  last in the file; 0 for what is kept as it is. `{}` stands for the expert.
  What is `exact` is never stored as int8.
  """

  huggingface: str
  gguf: str
  num_in: int = 0
  exact: bool = False


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
  "mlp/router/kernel": Rule(
    "mlp.gate.weight", "ffn_gate_inp.weight", 1, exact=True
  ),
}

_EXPERTS = {
  f"mlp/{name}/kernel": Rule(
    f"mlp.experts.{{}}.{name}_proj.weight", f"ffn_{name}_exps.weight/{{}}", 1
  )
  for name in ("gate", "up", "down")
}
"""A tensor for each expert; a source whose file has one for all names its
parts so."""

# Where a layer has two norms to each branch, Hugging Face calls the second
# branch's first norm by another name.
_MLP_NORM = {
  True: Rule("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
  False: Rule("post_attention_layernorm.weight", "ffn_norm.weight"),
}


@dataclasses.dataclass(frozen=True)
class Leaf:
  """A parameter: its path, its shape, and the tensors that it is made of.

  It is `stacked` over so many axes in front, 1 for layers and 2 for experts in
  layers, with a tensor for each entry, the last axis fastest.
  """

  path: tuple[str, ...]
  shape: tuple[int, ...]
  stacked: int
  tensors: tuple[str, ...]
  num_in: int
  exact: bool = False

  @property
  def key(self) -> str:
    """The path without the segment."""
    return "/".join(self.path[1:] if self.stacked else self.path)

  @property
  def inner(self) -> tuple[int, ...]:
    """The shape of what is in one tensor."""
    return self.shape[self.stacked :]

  @property
  def size(self) -> int:
    """The number of values of one tensor."""
    return math.prod(self.inner)

  @property
  def inputs(self) -> tuple[int, ...]:
    """The input axes of what can be stored as int8, else none."""
    return (
      ()
      if self.exact
      else tuple(range(self.stacked, self.stacked + self.num_in))
    )

  def tensor(self, entry: tuple[int, ...]) -> str:
    """The tensor of one layer, or of one expert in a layer."""
    at = 0
    for index, size in zip(entry, self.shape, strict=False):
      at = at * size + index
    return self.tensors[at]

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
    segment = int(path[0].removeprefix("segment_")) if stacked else 0
    experts = stacked and config.segments[segment].sparse and key in _EXPERTS
    rule = _EXPERTS[key] if experts else rule or _RULES[key]
    names = (getattr(rule, file_format),)
    if experts:
      names = tuple(names[0].format(n) for n in range(shape.shape[1]))
    if stacked:
      prefix = "model.layers." if file_format == "huggingface" else "blk."
      first = config.offsets[segment]
      numbers = range(first, first + shape.shape[0])
      names = tuple(f"{prefix}{n}.{name}" for n in numbers for name in names)
    found.append(
      Leaf(path, shape.shape, stacked + experts, names, rule.num_in, rule.exact)
    )
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
  """What a parameter has of a tensor, or the part of it that `index` names."""
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


def tensors(
  leaves: Iterable[Leaf], params: types.PyTree
) -> Iterator[tuple[Leaf, str, np.ndarray]]:
  """The tensors of parameters, axes in the file's order but still apart.

  One layer of one parameter is on the host at a time.
  """
  arrays = dict(walk(params))
  for leaf in leaves:
    array = arrays[leaf.path]
    layers = leaf.shape[0] if leaf.stacked else 1
    names = iter(leaf.tensors)
    for layer in range(layers):
      values = np.asarray(array[layer] if leaf.stacked else array)
      for part in values.reshape(-1, *leaf.inner):
        yield leaf, next(names), _file_values(leaf, part)


def _file_values(leaf: Leaf, values: np.ndarray) -> np.ndarray:
  num_in = leaf.num_in
  return values.transpose([*range(num_in, values.ndim), *range(num_in)])
