# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The header of a GGUF file: metadata, and where each tensor lies.

A plain reader: `gguf.GGUFReader` makes several NumPy objects per token of the
vocabulary and needs seconds to open a file. Nothing that the file says is
believed before it has been compared with the file's size, so that a damaged or
hostile file costs neither time nor memory.

References: the GGUF specification, versions 2 and 3 (little endian).
"""

import dataclasses
import math
import mmap
import os
import pathlib
import struct
from typing import Any

import numpy as np

from jdistill import pointers
from jdistill.types import UserError

_MAGIC = b"GGUF"
_MAX_DIMS = 4
_MAX_NAME = 65_535  # bytes of a key or of a tensor's name
_MAX_NESTING = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {
  0: "<u1",
  1: "<i1",
  2: "<u2",
  3: "<i2",
  4: "<u4",
  5: "<i4",
  6: "<f4",
  7: "<u1",  # bool
  10: "<u8",
  11: "<i8",
  12: "<f8",
}
_BOOL = 7

# ggml type: (elements per block, bytes per block)
_BLOCKS = {
  0: (1, 4),  # F32
  1: (1, 2),  # F16
  2: (32, 18),  # Q4_0
  3: (32, 20),  # Q4_1
  6: (32, 22),  # Q5_0
  7: (32, 24),  # Q5_1
  8: (32, 34),  # Q8_0
  9: (32, 40),  # Q8_1
  10: (256, 84),  # Q2_K
  11: (256, 110),  # Q3_K
  12: (256, 144),  # Q4_K
  13: (256, 176),  # Q5_K
  14: (256, 210),  # Q6_K
  15: (256, 292),  # Q8_K
  16: (256, 66),  # IQ2_XXS
  17: (256, 74),  # IQ2_XS
  18: (256, 98),  # IQ3_XXS
  19: (256, 50),  # IQ1_S
  20: (32, 18),  # IQ4_NL
  21: (256, 110),  # IQ3_S
  22: (256, 82),  # IQ2_S
  23: (256, 136),  # IQ4_XS
  24: (1, 1),  # I8
  25: (1, 2),  # I16
  26: (1, 4),  # I32
  27: (1, 8),  # I64
  28: (1, 8),  # F64
  29: (256, 56),  # IQ1_M
  30: (1, 2),  # BF16
  34: (256, 54),  # TQ1_0
  35: (256, 66),  # TQ2_0
  39: (32, 17),  # MXFP4
  40: (64, 36),  # NVFP4
  41: (128, 18),  # Q1_0
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
  """Where a tensor lies and how it is stored.

  `shape` is row-major, as in NumPy (the reverse of the file's order);
  `ggml_type` is a `gguf.GGMLQuantizationType`; `offset` counts bytes from the
  start of the file.
  """

  name: str
  shape: tuple[int, ...]
  ggml_type: int
  offset: int
  nbytes: int


@dataclasses.dataclass(frozen=True)
class Header:
  """What a GGUF file says before its data.

  In `metadata` a number is an int, float or bool, an array of numbers a NumPy
  array, and an array of strings a list.
  """

  path: pathlib.Path
  version: int
  metadata: dict[str, Any]
  tensors: dict[str, TensorInfo]
  alignment: int
  data_offset: int


def read_header(path: str | os.PathLike[str]) -> Header:
  """Reads the header of a GGUF file, vocabulary included.

  Args:
    path: the file.
  Returns: the header; the tensors' bytes are read by `tensor_bytes`.
  Raises:
    UserError: the file is missing, truncated, damaged, or of another format.
  """
  path = pathlib.Path(path)
  try:
    with open(path, "rb") as file:
      size = os.fstat(file.fileno()).st_size
      start = file.read(len(_MAGIC))
      if not size:
        raise UserError(f"{path}: not a GGUF file: it is empty")
      if start != _MAGIC:
        raise UserError(
          f"{path}: not a GGUF file: it begins with {start!r}, not {_MAGIC!r}"
          f"{pointers.hint(path)}"
        )
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(path, data, size).header()
  except OSError as error:
    reason = error.strerror or str(error)
    raise UserError(f"{path}: cannot read this GGUF file: {reason}") from None


def tensor_bytes(header: Header, name: str) -> np.ndarray:
  """The raw bytes of one tensor, uint8 [nbytes], mapped and not yet read.

  Raises:
    UserError: the file has no such tensor.
  """
  info = header.tensors.get(name)
  if info is None:
    raise UserError(
      f"{header.path}: no tensor {name!r} among its {len(header.tensors)}"
    )
  return np.memmap(
    header.path, np.uint8, "r", offset=info.offset, shape=(info.nbytes,)
  )


class _Reader:
  """A cursor over a mapped file that never passes the file's end."""

  def __init__(self, path: pathlib.Path, data: mmap.mmap, size: int):
    self.path = path
    self.data = data
    self.size = size
    self.at = len(_MAGIC)

  def error(self, what: str) -> UserError:
    return UserError(f"{self.path}: damaged GGUF file: {what}")

  def need(self, num_bytes: int, what: str) -> None:
    """Refuses to go on where the file is too short for `num_bytes` more."""
    left = self.size - self.at
    if num_bytes > left:
      raise self.error(
        f"{what} at byte {self.at} needs {num_bytes} bytes and the file ends"
        f" after {left} (truncated download?)"
      )

  def number(self, code: str, what: str) -> Any:
    length = struct.calcsize(code)
    self.need(length, what)
    (value,) = struct.unpack_from(code, self.data, self.at)
    self.at += length
    return value

  def string(self, what: str, limit: int | None = None) -> bytes:
    length = self.number("<Q", f"the length of {what}")
    if limit is not None and length > limit:
      raise self.error(f"{what} is {length} bytes long (at most {limit})")
    self.need(length, what)
    self.at += length
    return self.data[self.at - length : self.at]

  def name(self, what: str) -> str:
    raw = self.string(what, _MAX_NAME)
    try:
      return raw.decode()
    except UnicodeDecodeError:
      raise self.error(f"{what} is not UTF-8: {raw[:40]!r}") from None

  def header(self) -> Header:
    version = self.number("<I", "the version")
    if version not in (2, 3):
      swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
      endian = " (a big-endian file?)" if swapped in (2, 3) else ""
      raise UserError(
        f"{self.path}: GGUF version {version}{endian} is not supported;"
        " expected little-endian version 2 or 3"
      )
    num_tensors = self.number("<Q", "the number of tensors")
    num_fields = self.number("<Q", "the number of metadata fields")
    # The least that a field and a tensor's description take in the file.
    self.need(13 * num_fields, f"metadata of {num_fields} fields")
    self.need(32 * num_tensors, f"a list of {num_tensors} tensors")
    metadata = self.metadata(num_fields)
    alignment = metadata.get("general.alignment", 32)
    if (
      not isinstance(alignment, int)
      or not 0 < alignment <= 1 << 20
      or alignment & (alignment - 1)
    ):
      raise self.error(
        f"general.alignment is {alignment!r}, not a power of two up to 2**20"
      )
    entries = [self.tensor_entry(i) for i in range(num_tensors)]
    data_offset = -(-self.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, ggml_type, offset in entries:
      if name in tensors:
        raise self.error(f"two tensors are called {name!r}")
      if offset % alignment:
        raise self.error(
          f"tensor {name!r} at {offset} is not aligned to {alignment} bytes"
        )
      tensors[name] = self.place(name, shape, ggml_type, data_offset + offset)
    return Header(self.path, version, metadata, tensors, alignment, data_offset)

  def metadata(self, num_fields: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(num_fields):
      key = self.name(f"the key of metadata field {index}")
      if key in metadata:
        raise self.error(f"metadata field {key!r} is there twice")
      kind = self.number("<I", f"the type of {key!r}")
      metadata[key] = self.value(key, kind, 0)
    return metadata

  def value(self, key: str, kind: int, depth: int) -> Any:
    if kind in _SCALARS:
      value = self.array(key, kind, 1)[0].item()
      return bool(value) if kind == _BOOL else value
    if kind == _STRING:
      # A licence in another encoding must not make the weights unreadable.
      return self.string(f"the value of {key!r}").decode(errors="replace")
    if kind != _ARRAY:
      raise self.error(f"metadata field {key!r} has unknown type {kind}")
    if depth == _MAX_NESTING:
      raise self.error(f"metadata field {key!r} nests more than {depth} deep")
    kind = self.number("<I", f"the element type of {key!r}")
    count = self.number("<Q", f"the length of {key!r}")
    if kind in _SCALARS:
      values = self.array(key, kind, count)
      return values.astype(bool) if kind == _BOOL else values
    if kind == _STRING:
      return self.strings(key, count)
    self.need(12 * count, f"{key!r}, an array of {count} arrays,")
    return [self.value(key, kind, depth + 1) for _ in range(count)]

  def array(self, key: str, kind: int, count: int) -> np.ndarray:
    dtype = np.dtype(_SCALARS[kind])
    self.need(dtype.itemsize * count, f"{key!r} with {count} values")
    values = np.frombuffer(self.data, dtype, count, self.at).copy()
    self.at += dtype.itemsize * count
    return values

  def strings(self, key: str, count: int) -> list[str]:
    """An array of strings; the loop that a vocabulary goes through."""
    self.need(8 * count, f"{key!r}, an array of {count} strings,")
    data, at, size = self.data, self.at, self.size
    unpack = struct.Struct("<Q").unpack_from
    strings: list[str] = []
    for index in range(count):
      start = at + 8
      end = start + unpack(data, at)[0] if start <= size else size + 1
      if end > size:
        raise self.error(
          f"string {index} of {count} of {key!r} at byte {at} passes the end"
          f" of the file ({size} bytes; truncated download?)"
        )
      try:
        strings.append(data[start:end].decode())
      except UnicodeDecodeError:
        raise self.error(f"string {index} of {key!r} is not UTF-8") from None
      at = end
    self.at = at
    return strings

  def tensor_entry(self, index: int) -> tuple[str, tuple[int, ...], int, int]:
    name = self.name(f"the name of tensor {index}")
    num_dims = self.number("<I", f"the rank of tensor {name!r}")
    if num_dims > _MAX_DIMS:
      raise self.error(
        f"tensor {name!r} has {num_dims} axes (at most {_MAX_DIMS})"
      )
    shape = tuple(
      self.number("<Q", f"the shape of tensor {name!r}")
      for _ in range(num_dims)
    )[::-1]
    ggml_type = self.number("<I", f"the type of tensor {name!r}")
    offset = self.number("<Q", f"the offset of tensor {name!r}")
    return name, shape, ggml_type, offset

  def place(
    self, name: str, shape: tuple[int, ...], ggml_type: int, offset: int
  ) -> TensorInfo:
    if ggml_type not in _BLOCKS:
      raise self.error(f"tensor {name!r} has unknown ggml type {ggml_type}")
    block, block_bytes = _BLOCKS[ggml_type]
    size = math.prod(shape)
    if size == 0 or (shape[-1] if shape else 1) % block:
      raise self.error(
        f"tensor {name!r} of shape {shape} cannot be stored in blocks of"
        f" {block} (ggml type {ggml_type})"
      )
    nbytes = size // block * block_bytes
    if offset + nbytes > self.size:
      raise self.error(
        f"tensor {name!r} lies at bytes {offset} to {offset + nbytes} and the"
        f" file has {self.size} (truncated download?)"
      )
    return TensorInfo(name, shape, ggml_type, offset, nbytes)
