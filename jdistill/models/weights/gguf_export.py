# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Writing models as GGUF files, for llama.cpp and what is built on it."""

import itertools
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jdistill import gguf_file, types
from jdistill.models.decoder import DecoderConfig
from jdistill.models.weights import gguf, layout
from jdistill.models.weights.compare import check_params, differences
from jdistill.types import UserError

if TYPE_CHECKING:
  from gguf import GGMLQuantizationType, GGUFWriter

Kind = Literal["f32", "f16", "q8_0"]

_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
_BLOCK = 32  # values that share a scale in q8_0


def save_gguf(
  path: str | os.PathLike[str],
  config: DecoderConfig,
  params: types.PyTree,
  tokenizer_metadata: Mapping[str, Any],
  *,
  kind: Kind = "f16",
) -> None:
  """Writes a GGUF file, one tensor in memory at a time.

  Args:
    path: of the file; must not exist.
    config: the architecture; everything it computes has to be expressible.
    params: its parameters.
    tokenizer_metadata: fields `tokenizer.*` with str, bool, int, float, and
      arrays of them, as `gguf_file.read_header` gives them. Other fields are
      left out: they describe another model.
    kind: how matrices are stored; vectors are float32. Rows that q8_0 cannot
      divide into blocks of 32 are f16.
  Raises:
    UserError: no architecture of llama.cpp computes this; the file exists; the
      tokenizer has another number of tokens; values too large for f16.
  """
  path = pathlib.Path(path)
  if path.exists():
    raise UserError(f"{path}: exists already; choose another name")
  metadata = render(config)
  check_params(config, params)
  tokens = tokenizer_metadata.get("tokenizer.ggml.tokens", ())
  if len(tokens) != config.vocab_size:
    raise UserError(
      f"{path}: the tokenizer has {len(tokens)} tokens and the model"
      f" {config.vocab_size}; llama.cpp needs as many"
    )
  from gguf import GGUFWriter

  part = path.with_name(path.name + ".part")
  writer = GGUFWriter(part, str(metadata["general.architecture"]))
  fields = {
    k: v for k, v in tokenizer_metadata.items() if k.startswith("tokenizer.")
  }
  extra = {
    "general.file_type": _FILE_TYPES[kind],
    "general.quantization_version": 2,
  }
  for key, value in (metadata | extra | fields).items():
    if key != "general.architecture":
      _add(writer, key, value)
  try:
    _write(writer, config, params, kind, str(path))
    writer.close()
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def render(config: DecoderConfig) -> dict[str, Any]:
  """The metadata that give this architecture back.

  Raises:
    UserError: no architecture of llama.cpp computes this; the message says
      what the nearest one would do otherwise.
  """
  nearest: tuple[str, list[str]] | None = None
  for family in gguf.FAMILIES:
    metadata = _metadata(config, family)
    try:
      differing = differences(config, _read_back(config, metadata))
    except UserError as error:
      differing = [str(error)]
    if not differing:
      return metadata
    if nearest is None or len(differing) < len(nearest[1]):
      nearest = family, differing
  family, differing = nearest or ("", [])
  raise UserError(
    "no architecture of GGUF computes what this config says; the nearest,"
    f" {family}, differs in {'; '.join(differing)}"
  )


def _metadata(config: DecoderConfig, family: str) -> dict[str, Any]:
  """A family's metadata, right where it can express the config."""
  pairs = list(zip(config.windows, config.layer_ropes, strict=True))
  whole = [rope for window, rope in pairs if not window]
  local = [rope for window, rope in pairs if window]
  rope = (whole or local)[0]
  fields: dict[str, Any] = {
    "context_length": config.context_length,
    "embedding_length": config.width,
    "block_count": config.num_layers,
    "feed_forward_length": config.mlp_width,
    "attention.head_count": config.num_heads,
    "attention.head_count_kv": config.num_kv_heads,
    "attention.key_length": config.head_dim,
    "attention.value_length": config.head_dim,
    "attention.layer_norm_rms_epsilon": config.norm_eps,
    "rope.dimension_count": config.head_dim,
    "rope.freq_base": rope.theta,
    "vocab_size": config.vocab_size,
  }
  if rope.scaling == "linear":
    fields |= {
      "rope.scaling.type": "linear",
      "rope.scaling.factor": rope.factor,
    }
  if family == "qwen3moe" and config.experts is not None:
    fields |= {
      "expert_count": config.experts.num_experts,
      "expert_used_count": config.experts.per_token,
      "expert_feed_forward_length": config.experts.width,
    }
  if family in gguf.GEMMAS:
    fields["attention.sliding_window"] = max(config.windows)
    caps = {
      "attn_logit_softcapping": config.attention_soft_cap,
      "final_logit_softcapping": config.final_soft_cap,
    }
    fields |= {name: cap for name, cap in caps.items() if cap is not None}
  if family == "gemma3":
    fields["rope.freq_base_swa"] = (local or whole)[0].theta
  named = {f"{family}.{name}": value for name, value in fields.items()}
  return {"general.architecture": family, **named}


def _read_back(
  config: DecoderConfig, metadata: Mapping[str, Any]
) -> DecoderConfig:
  """What the reader makes of metadata, without a file."""
  shapes = {"token_embd.weight": (config.vocab_size, config.width)}
  if not config.tied:
    shapes["output.weight"] = shapes["token_embd.weight"]
  tensors = {
    name: gguf_file.TensorInfo(name, shape, 0, 0, 0)
    for name, shape in shapes.items()
  }
  header = gguf_file.Header(
    pathlib.Path("what would be written"), 3, dict(metadata), tensors, 32, 0
  )
  return gguf.header_config(header, _rope_factors(config))


def _rope_factors(config: DecoderConfig) -> np.ndarray | None:
  """What Llama 3 divides each frequency by, a tensor in its files."""
  rope = config.layer_ropes[0]
  if rope.scaling != "llama3":
    return None
  return gguf.rope_factors(rope, config.head_dim)


def _add(writer: "GGUFWriter", key: str, value: Any) -> None:
  """Adds a field as the type that its Python value stands for."""
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, bool | np.bool_):
    writer.add_bool(key, bool(value))
  elif isinstance(value, int | np.integer):
    writer.add_uint32(key, int(value))
  elif isinstance(value, float | np.floating):
    writer.add_float32(key, float(value))
  elif isinstance(value, str):
    writer.add_string(key, value)
  elif len(value):
    writer.add_array(key, list(value))


def _write(
  writer: "GGUFWriter",
  config: DecoderConfig,
  params: types.PyTree,
  kind: Kind,
  where: str,
) -> None:
  leaves = layout.leaves(config, "gguf")
  for leaf in leaves:
    stored = _stored(leaf, kind)
    experts = leaf.shape[1:2] if leaf.stacked == 2 else ()
    for tensor in dict.fromkeys(map(_whole, leaf.tensors)):
      shape = (*experts, *leaf.file_shape)
      nbytes = _nbytes(math.prod(shape), stored)
      writer.add_tensor_info(
        tensor, shape, np.dtype(np.float32), nbytes, stored
      )
  factors = _rope_factors(config)
  if factors is not None:
    writer.add_tensor_info(
      gguf.ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes
    )
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_ti_data_to_file()
  family = writer.arch
  parts = _tensors(config, leaves, params, family)
  for tensor, found in itertools.groupby(parts, lambda part: _whole(part[1])):
    data = [
      _encode(leaf, kind, values, f"{where}: {tensor}")
      for leaf, _, values in found
    ]
    writer.write_tensor_data(data[0] if len(data) == 1 else np.stack(data))
  if factors is not None:
    writer.write_tensor_data(factors)


def _whole(tensor: str) -> str:
  """The file's tensor, which has all experts of a layer."""
  return tensor.partition("/")[0]


def _stored(leaf: layout.Leaf, kind: Kind) -> "GGMLQuantizationType":
  from gguf import GGMLQuantizationType as Stored

  if len(leaf.file_shape) == 1 or kind == "f32" or leaf.exact:
    return Stored.F32
  if kind == "q8_0" and leaf.file_shape[-1] % _BLOCK == 0:
    return Stored.Q8_0
  return Stored.F16


def _nbytes(size: int, stored: "GGMLQuantizationType") -> int:
  from gguf.constants import GGML_QUANT_SIZES

  block, block_bytes = GGML_QUANT_SIZES[stored]
  return size // block * block_bytes


def _encode(
  leaf: layout.Leaf, kind: Kind, values: np.ndarray, where: str
) -> np.ndarray:
  from gguf import GGMLQuantizationType as Stored
  from gguf import quants

  stored = _stored(leaf, kind)
  largest = float(np.max(np.abs(values)))
  if stored == Stored.F16 and not largest <= float(np.finfo(np.float16).max):
    raise UserError(
      f"{where} has values up to {largest:g}, which float16 cannot hold; choose"
      " kind f32"
    )
  return quants.quantize(values, stored)


def _tensors(
  config: DecoderConfig,
  leaves: list[layout.Leaf],
  params: types.PyTree,
  family: str,
) -> Iterator[tuple[layout.Leaf, str, np.ndarray]]:
  """Each tensor in the file's layout, float32."""
  for leaf, tensor, values in layout.tensors(leaves, params):
    values = values.astype(np.float32)
    values = gguf.to_file(leaf, values, family, config.norm_plus_one)
    yield leaf, tensor, np.ascontiguousarray(values.reshape(leaf.file_shape))
