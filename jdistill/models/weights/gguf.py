# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading models from GGUF files (llama.cpp's format), quantised or not."""

import math
import os
from typing import Any

import numpy as np

from jdistill import gguf_file
from jdistill.models.decoder import DecoderConfig
from jdistill.models.rope import Rope
from jdistill.models.spec import Mixture, Segment
from jdistill.models.weights import layout
from jdistill.models.weights.layout import Leaf
from jdistill.types import UserError

_CHUNK = 1 << 22  # values that are dequantised at a time

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3")
GEMMAS = ("gemma2", "gemma3")
ROPE_FACTORS = "rope_freqs.weight"


class _Fields:
  """The metadata of one architecture."""

  def __init__(self, header: gguf_file.Header):
    self.header = header
    self.family = header.metadata.get("general.architecture")
    if self.family not in FAMILIES:
      raise UserError(
        f"{header.path}: architecture {self.family!r} is not supported; a"
        f" decoder can be one of {', '.join(FAMILIES)}"
      )

  def get(self, name: str, default: Any = None) -> Any:
    return self.header.metadata.get(f"{self.family}.{name}", default)

  def need(self, name: str) -> Any:
    value = self.get(name)
    if value is None:
      raise UserError(
        f"{self.header.path}: metadata field {self.family}.{name} is missing"
      )
    return value

  def decimal(self, name: str) -> float | None:
    """A number by the short decimal that its float32 was written from."""
    value = self.get(name)
    return None if value is None else _plain(value)

  def need_decimal(self, name: str) -> float:
    return _plain(self.need(name))

  def same(self, name: str) -> int:
    """A count that a file may give for each layer, where all are equal."""
    value = np.unique(np.asarray(self.need(name)))
    if value.size != 1:
      raise UserError(
        f"{self.header.path}: {self.family}.{name} differs between layers"
        f" ({value.tolist()}); layers of unlike sizes are not supported"
      )
    return int(value[0])


def read_config(path: str | os.PathLike[str]) -> DecoderConfig:
  """The architecture of a GGUF file; reads its header alone.

  Raises:
    UserError: the file is damaged, or not of a supported architecture.
  """
  header = gguf_file.read_header(path)
  return header_config(header, _read_rope_factors(header))


def header_config(
  header: gguf_file.Header, factors: np.ndarray | None
) -> DecoderConfig:
  """The architecture of a header and its tensor of rope factors, if any."""
  fields = _Fields(header)
  embedding = header.tensors.get("token_embd.weight")
  if embedding is None:
    raise UserError(f"{header.path}: tensor 'token_embd.weight' is missing")
  width = fields.need("embedding_length")
  num_heads = fields.same("attention.head_count")
  gemma = fields.family in GEMMAS
  head_dim = fields.get("attention.key_length", width // num_heads)
  windows, rope_of = _windows(fields)
  experts = _experts(fields)
  return DecoderConfig(
    vocab_size=embedding.shape[0],
    width=width,
    mlp_width=fields.same("feed_forward_length"),
    num_heads=num_heads,
    num_kv_heads=fields.same("attention.head_count_kv"),
    head_dim=head_dim,
    segments=(Segment(windows, rope_of, sparse=experts is not None),),
    ropes=_ropes(fields, head_dim, factors),
    activation="gelu_tanh" if gemma else "silu",
    norm_eps=fields.need_decimal("attention.layer_norm_rms_epsilon"),
    norm_plus_one=gemma,
    post_norms=gemma,
    qk_norm=fields.family in ("qwen3", "qwen3moe", "gemma3"),
    qkv_bias=fields.family == "qwen2",
    tied="output.weight" not in header.tensors,
    embed_scale=width**0.5 if gemma else 1.0,
    query_scale=_query_scale(fields, width, num_heads),
    attention_soft_cap=fields.decimal("attn_logit_softcapping")
    if fields.family == "gemma2"
    else None,
    final_soft_cap=fields.decimal("final_logit_softcapping") if gemma else None,
    context_length=fields.need("context_length"),
    experts=experts,
  )


def _plain(value: float) -> float:
  """The decimal that a float32 was written from: 1e-05, not 9.99e-06."""
  return float(str(np.float32(value)))


def _query_scale(fields: _Fields, width: int, num_heads: int) -> float | None:
  """Gemma's largest models scale by width / heads; no field says so."""
  largest = {"gemma2": 46, "gemma3": 62}.get(str(fields.family))
  if fields.need("block_count") == largest:
    return (width / num_heads) ** -0.5
  return None


def _experts(fields: _Fields) -> Mixture | None:
  """llama.cpp has them in all layers of the family, and renormalises."""
  if fields.family != "qwen3moe":
    return None
  return Mixture(
    num_experts=fields.need("expert_count"),
    per_token=fields.need("expert_used_count"),
    width=fields.need("expert_feed_forward_length"),
  )


def _windows(fields: _Fields) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Each layer's window and which rope it turns by."""
  num_layers = fields.need("block_count")
  period = {"gemma2": 2, "gemma3": 6}.get(str(fields.family))
  if period is None:
    return (0,) * num_layers, (0,) * num_layers
  window = fields.need("attention.sliding_window")
  # Every period-th layer sees everything, the others a window.
  local = [(n + 1) % period != 0 for n in range(num_layers)]
  windows = tuple(window if is_local else 0 for is_local in local)
  if fields.family != "gemma3":
    return windows, (0,) * num_layers
  return windows, tuple(int(is_local) for is_local in local)


def _ropes(
  fields: _Fields, head_dim: int, factors: np.ndarray | None
) -> tuple[Rope, ...]:
  theta = _plain(fields.get("rope.freq_base", 10_000.0))
  kind = fields.get("rope.scaling.type", "none")
  if kind not in ("none", "linear"):
    raise UserError(
      f"{fields.header.path}: rope scaling {kind!r} is not supported; expected"
      f" none, linear, or a tensor {ROPE_FACTORS} like Llama 3's"
    )
  rope = Rope(theta)
  if kind == "linear":
    rope = Rope(theta, "linear", fields.need_decimal("rope.scaling.factor"))
  if factors is not None:
    rope = _llama3(fields, theta, head_dim, factors)
  if fields.family == "gemma3":
    return rope, Rope(_plain(fields.get("rope.freq_base_swa", 10_000.0)))
  return (rope,)


def rope_factors(rope: Rope, head_dim: int) -> np.ndarray:
  """What a rope divides the plain frequencies by, [head_dim / 2] float32."""
  plain = Rope(rope.theta).frequencies(head_dim).astype(np.float64)
  return (plain / rope.frequencies(head_dim)).astype(np.float32)


def _llama3(
  fields: _Fields, theta: float, head_dim: int, factors: np.ndarray
) -> Rope:
  """Llama 3's rope, whose file has its effect but not its parameters."""
  rope = Rope(theta, "llama3", _plain(factors.max().item()))
  expected = rope_factors(rope, head_dim)
  if factors.shape != expected.shape or not np.allclose(
    factors, expected, rtol=1e-3
  ):
    raise UserError(
      f"{fields.header.path}: tensor {ROPE_FACTORS!r} is not that of Llama 3's"
      f" rope scaling with factor {rope.factor:g}, the only one that is"
      f" supported (frequency factors {rope.low_freq_factor:g} and"
      f" {rope.high_freq_factor:g}, original length {rope.original_length})"
    )
  return rope


def _read_rope_factors(header: gguf_file.Header) -> np.ndarray | None:
  if ROPE_FACTORS not in header.tensors:
    return None
  return _dequantize(header, ROPE_FACTORS, slice(None))


def _dequantize(
  header: gguf_file.Header, tensor: str, rows: slice
) -> np.ndarray:
  """Some rows of a tensor, float32."""
  from gguf import GGMLQuantizationType, quants

  info = header.tensors[tensor]
  kind = GGMLQuantizationType(info.ggml_type)
  data = gguf_file.tensor_bytes(header, tensor)
  # A list of one row, or the rows, those of all experts behind each other.
  data = data.reshape(math.prod(info.shape[:-1]), -1)
  flat = len(info.shape) == 1
  data = data if flat else data[rows]
  values = np.empty((data.shape[0], info.shape[-1]), np.float32)
  step = max(1, _CHUNK // info.shape[-1])
  try:
    for start in range(0, data.shape[0], step):
      part = slice(start, start + step)
      values[part] = quants.dequantize(data[part], kind)
  except NotImplementedError:
    raise UserError(
      f"{header.path}: tensor {tensor!r} is quantised as {kind.name}, which"
      " cannot be read; take another quantisation of the model"
    ) from None
  return values[0, rows] if flat else values


def turns(leaf: Leaf) -> bool:
  """Whether a parameter makes queries or keys, which ropes turn."""
  return leaf.key.split("/")[:2] in (["attention", "q"], ["attention", "k"])


def to_file(
  leaf: Leaf, values: np.ndarray, family: str, norm_plus_one: bool
) -> np.ndarray:
  """The opposite of `GgufSource.mend`."""
  if family == "llama" and turns(leaf):
    heads, head_dim, *rest = values.shape
    values = values.reshape(heads, 2, head_dim // 2, *rest)
    return values.swapaxes(1, 2).reshape(heads, head_dim, *rest)
  if norm_plus_one and leaf.path[-1] == "scale":
    return values + 1.0
  return values


class GgufSource(layout.Source):
  """The tensors of a GGUF file, dequantised as they are read."""

  format: layout.Format = "gguf"

  def __init__(self, path: str | os.PathLike[str]):
    self.header = gguf_file.read_header(path)
    self.config = header_config(self.header, _read_rope_factors(self.header))
    self.location = str(path)
    self.shapes = {}
    for name, info in self.header.tensors.items():
      if len(info.shape) == 3:  # all experts of a layer
        for expert in range(info.shape[0]):
          self.shapes[f"{name}/{expert}"] = info.shape[1:]
      elif name != ROPE_FACTORS:
        self.shapes[name] = info.shape

  def read(self, tensor: str, rows: slice) -> np.ndarray:
    """Some rows of a tensor, or of an expert's part of one, float32."""
    name, _, expert = tensor.partition("/")
    first = int(expert) * self.header.tensors[name].shape[1] if expert else 0
    rows = slice(first + rows.start, first + rows.stop)
    return _dequantize(self.header, name, rows)

  def mend(self, leaf: Leaf, values: np.ndarray) -> np.ndarray:
    """Rotate-half order of query and key rows; norms without the one."""
    if self.header.metadata["general.architecture"] == "llama" and turns(leaf):
      # [H, Dh, ...]: the file alternates the halves of each head.
      heads, head_dim, *rest = values.shape
      values = values.reshape(heads, head_dim // 2, 2, *rest)
      return values.swapaxes(1, 2).reshape(heads, head_dim, *rest)
    if self.config.norm_plus_one and leaf.path[-1] == "scale":
      return values - 1.0
    return values
