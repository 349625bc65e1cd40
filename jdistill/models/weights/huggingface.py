# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face directories: config.json and safetensors, in and out."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jdistill import pointers, types
from jdistill.models.decoder import DecoderConfig
from jdistill.models.weights import huggingface_config, layout
from jdistill.models.weights.compare import check_params
from jdistill.models.weights.huggingface_render import render
from jdistill.types import UserError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_FLOATS = ("F64", "F32", "F16", "BF16")

# The text part of a multi-modal checkpoint, and what else is in there.
_TEXT_PREFIXES = ("language_model.model.", "model.language_model.")
_NOT_TEXT = ("vision_tower", "multi_modal_projector")


def read_config(path: str | os.PathLike[str]) -> DecoderConfig:
  """The architecture of a directory; reads config.json alone.

  Raises:
    UserError: the file is missing or malformed, or the model not supported.
  """
  file = pathlib.Path(path) / "config.json"
  return huggingface_config.parse(_json(file), str(file))


def _json(file: pathlib.Path) -> dict[str, Any]:
  try:
    fields = json.loads(file.read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(f"{file}: {error.strerror or error}") from None
  except (ValueError, RecursionError) as error:
    raise UserError(
      f"{file}: not valid JSON: {error}{pointers.hint(file)}"
    ) from None
  if not isinstance(fields, dict):
    raise UserError(f"{file}: expected a JSON object")
  return fields


class HuggingFaceSource(layout.Source):
  """The tensors of a directory, read slice by slice."""

  format: layout.Format = "huggingface"

  def __init__(self, path: str | os.PathLike[str]):
    directory = pathlib.Path(path)
    self.config = read_config(directory)
    self.location = str(directory)
    self.shapes: dict[str, tuple[int, ...]] = {}
    self._stored: dict[str, tuple[Any, str, tuple[Any, ...]]] = {}
    for file in _files(directory):
      self._add(file)

  def _add(self, file: pathlib.Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
      opened = safe_open(file, framework="np")
    except (SafetensorError, OSError) as error:
      raise UserError(
        f"{file}: cannot read this safetensors file: {error}"
        f"{pointers.hint(file) or ' (truncated download?)'}"
      ) from None
    for stored in opened.keys():  # noqa: SIM118 (not a dict)
      whole = self._public(stored)
      if whole is None:
        continue
      piece = opened.get_slice(stored)
      if piece.get_dtype() not in _FLOATS:
        raise UserError(
          f"{file}: tensor {stored!r} is {piece.get_dtype()}; expected one of"
          f" {', '.join(_FLOATS)}"
        )
      for name, shape, at in _parts(whole, tuple(piece.get_shape())):
        if name in self.shapes:
          raise UserError(f"{file}: tensor {stored!r} is in another file too")
        self.shapes[name] = shape
        self._stored[name] = opened, stored, at

  def _public(self, stored: str) -> str | None:
    """The tensor's name in a model of text alone; None if it has no use."""
    if stored.endswith("rotary_emb.inv_freq"):
      return None
    if any(part in stored for part in _NOT_TEXT):
      return None
    for prefix in _TEXT_PREFIXES:
      if stored.startswith(prefix):
        stored = "model." + stored.removeprefix(prefix)
    stored = stored.removeprefix("language_model.")
    # A tied model computes with the embedding, whatever else the file holds.
    if stored == "lm_head.weight" and self.config.tied:
      return None
    return stored

  def read(self, tensor: str, rows: slice) -> np.ndarray:
    """Some rows of a tensor, in the dtype of the file."""
    opened, stored, at = self._stored[tensor]
    if not at:
      return opened.get_slice(stored)[rows]
    expert, first = at
    part = opened.get_slice(stored)[
      expert : expert + 1, first + rows.start : first + rows.stop
    ]
    return part[0]

  def mend(self, leaf: layout.Leaf, values: np.ndarray) -> np.ndarray:
    """Values are kept as they are used."""
    del leaf
    return values


def _parts(
  name: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
  """What a tensor consists of: a name each, its shape, where it begins.

  transformers 5 computes with one tensor for all experts of a layer, gate and
  up one after the other, and can write them so; a tensor for each is usual.
  """
  prefix, _, kind = name.rpartition(".")
  names = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}.get(kind, ())
  if not prefix.endswith(".mlp.experts") or not names or len(shape) != 3:
    yield name, shape, ()
    return
  num_experts, outputs, inputs = shape
  outputs //= len(names)
  for expert in range(num_experts):
    for n, part in enumerate(names):
      public = f"{prefix}.{expert}.{part}_proj.weight"
      yield public, (outputs, inputs), (expert, n * outputs)


def _files(directory: pathlib.Path) -> list[pathlib.Path]:
  """The files that hold the weights."""
  index = directory / _INDEX
  if not index.is_file():
    if not (directory / _SINGLE).is_file():
      raise UserError(
        f"{directory}: no {_SINGLE} and no {_INDEX}; expected weights as"
        " safetensors (pickled .bin or .pt files are never opened)"
      )
    return [directory / _SINGLE]
  names = _json(index).get("weight_map")
  if not isinstance(names, dict) or not names:
    raise UserError(f"{index}: weight_map is missing or empty")
  files = []
  for name in sorted(set(map(str, names.values()))):
    if pathlib.PurePath(name).name != name:
      raise UserError(f"{index}: {name!r} is not the name of a file beside it")
    if not (directory / name).is_file():
      raise UserError(f"{index}: file {name!r} is missing from {directory}")
    files.append(directory / name)
  return files


def save_huggingface(
  directory: str | os.PathLike[str],
  config: DecoderConfig,
  params: types.PyTree,
  *,
  special_ids: Mapping[str, int | Sequence[int] | None] | None = None,
  shard_bytes: int = 5_000_000_000,
) -> None:
  """Writes a model that transformers loads with `from_pretrained`.

  Tensors are written one after the other, so the host holds one layer of one
  parameter beside `params`.

  Args:
    directory: made if need be; must not hold a model already.
    config: the architecture; everything it computes has to be expressible.
    params: all float32, float16 or bfloat16, written as they are.
    special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`, for config.json
      and generation_config.json.
    shard_bytes: a file of weights is closed when it has reached this size.
  Raises:
    UserError: transformers has no model that computes this; the directory
      holds a model; parameters do not fit the config.
  """
  fields = render(config)
  dtype = _dtype(config, params)
  directory = pathlib.Path(directory)
  present = [*directory.glob("*.safetensors"), *directory.glob("config.json")]
  if present:
    raise UserError(
      f"{directory}: holds a model already ({present[0].name}); choose another"
      " directory or remove it"
    )
  directory.mkdir(parents=True, exist_ok=True)
  ids = {k: v for k, v in (special_ids or {}).items() if v is not None}
  # Both versions' names: transformers 4 and 5 read one each.
  fields |= {"torch_dtype": dtype, "dtype": dtype, "use_cache": True, **ids}
  _write_json(directory / "generation_config.json", ids)
  _write_weights(directory, config, params, shard_bytes)
  # Last, as it is what makes the directory a model.
  _write_json(directory / "config.json", fields)


def _dtype(config: DecoderConfig, params: types.PyTree) -> str:
  """The one dtype of the parameters, after a look at their shapes."""
  check_params(config, params)
  dtypes = sorted({str(leaf.dtype) for _, leaf in layout.walk(params)})
  if len(dtypes) != 1 or dtypes[0] not in _NAMES:
    raise UserError(
      f"parameters are {', '.join(dtypes)}; a model is written in one of"
      f" {', '.join(_NAMES)}"
    )
  return dtypes[0]


def _write_json(file: pathlib.Path, fields: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def _shards(
  config: DecoderConfig, shard_bytes: int, itemsize: int
) -> list[list[tuple[layout.Leaf, str]]]:
  """(parameter, tensor) pairs, dealt to files in the order of the model."""
  pairs = [
    (leaf, tensor)
    for leaf in layout.leaves(config, "huggingface")
    for tensor in leaf.tensors
  ]
  shards: list[list[tuple[layout.Leaf, str]]] = [[]]
  size = 0
  for leaf, tensor in pairs:
    if shards[-1] and size + leaf.size * itemsize > shard_bytes:
      shards.append([])
      size = 0
    shards[-1].append((leaf, tensor))
    size += leaf.size * itemsize
  return shards


def _write_weights(
  directory: pathlib.Path,
  config: DecoderConfig,
  params: types.PyTree,
  shard_bytes: int,
) -> None:
  arrays = dict(layout.walk(params))
  dtype = next(iter(arrays.values())).dtype
  shards = _shards(config, shard_bytes, dtype.itemsize)
  tensors = layout.tensors(layout.leaves(config, "huggingface"), params)
  weight_map = {}
  for number, pairs in enumerate(shards, 1):
    name = _SINGLE
    if len(shards) > 1:
      name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    _write_safetensors(directory / name, pairs, dtype, tensors)
    weight_map |= {tensor: name for _, tensor in pairs}
  if len(shards) > 1:
    total = sum(leaf.nbytes for leaf in arrays.values())
    _write_json(
      directory / _INDEX,
      {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def _write_safetensors(
  file: pathlib.Path,
  pairs: Sequence[tuple[layout.Leaf, str]],
  dtype: np.dtype,
  tensors: Iterator[tuple[layout.Leaf, str, np.ndarray]],
) -> None:
  """One safetensors file of the next tensors, one in memory at a time.

  The format is the length of a JSON header (8 bytes), the header, and the
  tensors' bytes; the library's own writer wants all tensors at once.
  """
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  at = 0
  for leaf, tensor in pairs:
    end = at + leaf.size * dtype.itemsize
    header[tensor] = {
      "dtype": _NAMES[str(dtype)],
      "shape": leaf.file_shape,
      "data_offsets": [at, end],
    }
    at = end
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  part = file.with_name(file.name + ".part")
  with open(part, "wb") as out:
    out.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in pairs:
      _, name, values = next(tensors)
      assert name == tensor
      out.write(values.tobytes())
  os.replace(part, file)
