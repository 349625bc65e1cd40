# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading models from GGUF files (llama.cpp's format), quantised or not."""

import os
from typing import Any

import numpy as np

from jdistill import gguf_file
from jdistill.models.decoder import DecoderConfig
from jdistill.models.rope import Rope
from jdistill.models.spec import Segment
from jdistill.models.weights import layout
from jdistill.models.weights.layout import Leaf
from jdistill.types import UserError

_CHUNK = 1 << 22  # values that are dequantised at a time

_FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")


class _Fields:
  """The metadata of one architecture."""

  def __init__(self, header: gguf_file.Header):
    self.header = header
    self.family = header.metadata.get("general.architecture")
    if self.family not in _FAMILIES:
      raise UserError(
        f"{header.path}: architecture {self.family!r} is not supported; a"
        f" decoder can be one of {', '.join(_FAMILIES)}"
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
  return header_config(gguf_file.read_header(path))


def header_config(header: gguf_file.Header) -> DecoderConfig:
  """The architecture that a header describes."""
  fields = _Fields(header)
  embedding = header.tensors.get("token_embd.weight")
  if embedding is None:
    raise UserError(f"{header.path}: tensor 'token_embd.weight' is missing")
  width = fields.need("embedding_length")
  num_heads = fields.same("attention.head_count")
  gemma = fields.family in ("gemma2", "gemma3")
  head_dim = fields.get("attention.key_length", width // num_heads)
  windows, rope_of = _windows(fields)
  return DecoderConfig(
    vocab_size=embedding.shape[0],
    width=width,
    mlp_width=fields.same("feed_forward_length"),
    num_heads=num_heads,
    num_kv_heads=fields.same("attention.head_count_kv"),
    head_dim=head_dim,
    segments=(Segment(windows, rope_of),),
    ropes=_ropes(fields, head_dim),
    activation="gelu_tanh" if gemma else "silu",
    norm_eps=_plain(fields.need("attention.layer_norm_rms_epsilon")),
    norm_plus_one=gemma,
    post_norms=gemma,
    qk_norm=fields.family in ("qwen3", "gemma3"),
    qkv_bias=fields.family == "qwen2",
    tied="output.weight" not in header.tensors,
    embed_scale=width**0.5 if gemma else 1.0,
    query_scale=None,
    attention_soft_cap=_plain(fields.get("attn_logit_softcapping")),
    final_soft_cap=_plain(fields.get("final_logit_softcapping")),
    context_length=fields.need("context_length"),
  )


def _plain(value: float | None) -> float | None:
  """The short decimal that a float32 was written from: 1e-05, not 9.99e-06."""
  return None if value is None else float(str(np.float32(value)))


def _windows(fields: _Fields) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Each layer's window and which rope it turns by."""
  num_layers = fields.need("block_count")
  window = fields.get("attention.sliding_window", 0) or 0
  period = {"gemma2": 2, "gemma3": 6}.get(fields.family, 1)
  # Every period-th layer sees everything, the others a window.
  local = [(n + 1) % period != 0 for n in range(num_layers)]
  windows = tuple(window if is_local else 0 for is_local in local)
  if fields.family != "gemma3":
    return windows, (0,) * num_layers
  return windows, tuple(int(is_local) for is_local in local)


def _ropes(fields: _Fields, head_dim: int) -> tuple[Rope, ...]:
  theta = _plain(fields.get("rope.freq_base", 10_000.0))
  kind = fields.get("rope.scaling.type", "none")
  if kind == "linear":
    rope = Rope(theta, "linear", _plain(fields.need("rope.scaling.factor")))
  elif kind == "none":
    rope = Rope(theta)
  else:
    raise UserError(
      f"{fields.header.path}: rope scaling {kind!r} is not supported; expected"
      " none, linear, or a tensor rope_freqs.weight as Llama 3 has"
    )
  if fields.family == "gemma3":
    local = _plain(fields.get("rope.freq_base_swa", 10_000.0))
    return rope, Rope(local)
  return (rope,)


class GgufSource:
  """The tensors of a GGUF file, dequantised as they are read."""

  format: layout.Format = "gguf"

  def __init__(self, path: str | os.PathLike[str]):
    self.header = gguf_file.read_header(path)
    self.config = header_config(self.header)
    self.location = str(path)
    self.shapes = {
      name: info.shape
      for name, info in self.header.tensors.items()
      if name != "rope_freqs.weight"
    }

  def read(self, tensor: str, rows: slice) -> np.ndarray:
    """Some rows of a tensor, float32."""
    from gguf import GGMLQuantizationType, quants

    info = self.header.tensors[tensor]
    kind = GGMLQuantizationType(info.ggml_type)
    data = gguf_file.tensor_bytes(self.header, tensor)
    if len(info.shape) == 1:
      return quants.dequantize(data, kind)[rows]
    data = data.reshape(info.shape[0], -1)[rows]
    values = np.empty((data.shape[0], info.shape[1]), np.float32)
    step = max(1, _CHUNK // info.shape[1])
    for start in range(0, data.shape[0], step):
      part = slice(start, start + step)
      values[part] = quants.dequantize(data[part], kind)
    return values

  def mend(self, leaf: Leaf, values: np.ndarray) -> np.ndarray:
    """Rotate-half order of query and key rows; norms without the one."""
    family = self.header.metadata["general.architecture"]
    turned = leaf.key in (
      "attention/q/kernel",
      "attention/k/kernel",
      "attention/q/bias",
      "attention/k/bias",
    )
    if family == "llama" and turned:
      # [H, Dh, ...]: the file alternates the halves of each head.
      heads, head_dim, *rest = values.shape
      values = values.reshape(heads, head_dim // 2, 2, *rest)
      return values.swapaxes(1, 2).reshape(heads, head_dim, *rest)
    if self.config.norm_plus_one and leaf.path[-1] == "scale":
      return values - 1.0
    return values
