# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Records by the content of rows: ArrayRecord files and a manifest.

A cache is a directory: `manifest.json`, `head.safetensors` where hidden states
need one, and parts, each `NUMBER.array_record` with `NUMBER.json` beside it,
which lists its rows. A part appears whole or not at all: its list is renamed
into place last. Rows are known by a digest of what the teacher read, so that
their order, their batches and the number of processes do not matter.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jdistill import types

VERSION = 1
MANIFEST = "manifest.json"
# What every manifest says, and as what.
_SAYS: dict[str, type | tuple[type, ...]] = {
  "teacher": dict,
  "signal": dict,
  "data": dict,
  "vocab_size": int,
  "head": (dict, type(None)),
}
_FIELDS = ("tokens", "positions", "segment_ids", "inputs", "mask")


def row_key(row: Mapping[str, np.ndarray]) -> bytes:
  """16 bytes that stand for what a teacher reads of a row, and what counts."""
  state = hashlib.blake2b(digest_size=16)
  for name in _FIELDS:
    if name in row:
      value = np.ascontiguousarray(row[name])
      state.update(f"{name}{value.dtype.str}{value.shape}".encode())
      state.update(value.data)
  return state.digest()


@dataclasses.dataclass(frozen=True)
class Part:
  """A finished file of records, and what its list says of them."""

  path: pathlib.Path
  keys: tuple[bytes, ...]
  tokens: int
  size: int
  width: int
  figures: Mapping[str, float]


def parts(directory: pathlib.Path) -> list[Part]:
  """The finished parts of a cache, by their numbers.

  Raises: UserError for a list that cannot be read, or whose file is not there
    or of another size.
  """
  found = []
  for path in sorted(directory.glob("[0-9]*.json")):
    try:
      said = json.loads(path.read_text())
      keys = tuple(bytes.fromhex(key) for key in said["keys"])
      data = path.with_suffix(".array_record")
      size = data.stat().st_size if data.is_file() else None
      if size != said["size"]:
        raise types.UserError(
          f"{data}: has {size or 0} bytes and should have {said['size']}; "
          f"remove it with {path.name}, and cache the rows again"
        )
      found.append(
        Part(
          data,
          keys,
          said["tokens"],
          said["size"],
          said["width"],
          said["figures"],
        )
      )
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise types.UserError(
        f"{path}: is no list of cached rows ({error}); remove it with its "
        ".array_record, and cache the rows again"
      ) from error
  return found


class Writer:
  """Writes records in parts; one process's.

  Args:
    directory: of the cache; it exists.
    numbers: of the parts that it may write, one after another.
    rows: of a part.
  """

  def __init__(
    self, directory: pathlib.Path, numbers: Iterable[int], rows: int = 512
  ):
    self._directory = directory
    self._numbers = iter(numbers)
    self._rows = rows
    self._file: Any = None

  def add(
    self,
    key: bytes,
    record: bytes,
    *,
    tokens: int,
    width: int,
    figures: Mapping[str, float],
  ) -> None:
    """Adds one row; with it a part may be finished."""
    if self._file is None:
      self._file = self._open()
    self._file.write(key + record)
    self._keys.append(key.hex())
    self._tokens += tokens
    self._width = max(self._width, width)
    for name, value in figures.items():
      self._figures[name] = self._figures.get(name, 0.0) + value
    if len(self._keys) == self._rows:
      self.flush()

  def flush(self) -> None:
    """Finishes the part that is open, if any."""
    if self._file is None:
      return
    self._file.close()
    self._file = None
    data = self._path.with_suffix(".array_record")
    os.replace(self._half, data)
    said = {
      "keys": self._keys,
      "tokens": self._tokens,
      "size": data.stat().st_size,
      "width": self._width,
      "figures": self._figures,
    }
    write_json(self._path.with_suffix(".json"), said)

  def _open(self) -> Any:
    from array_record.python import array_record_module

    self._path = self._directory / f"{next(self._numbers):08d}"
    self._half = self._path.with_suffix(".half")
    self._keys: list[str] = []
    self._tokens, self._width = 0, 0
    self._figures: dict[str, float] = {}
    # One record a chunk, so that each can be read without its neighbours.
    return array_record_module.ArrayRecordWriter(
      str(self._half), "group_size:1,uncompressed"
    )


class Cache:
  """A cache that is read: records by the digests of rows.

  Args:
    directory: of the cache.
  Raises: UserError for what is no cache, or one that is not finished.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    self.directory = pathlib.Path(directory)
    self.manifest = read_manifest(self.directory)
    if not self.manifest.get("complete"):
      raise types.UserError(
        f"{self.directory}: this cache is not finished; the same `jdistill "
        "cache` goes on with it"
      )
    found = parts(self.directory)
    self.tokens = sum(part.tokens for part in found)
    self.size = sum(part.size for part in found)
    self.width = max((part.width for part in found), default=1)
    self._paths = [str(part.path) for part in found]
    keys = np.frombuffer(
      b"".join(key for part in found for key in part.keys), "<u8"
    )[::2]
    self._order = np.argsort(keys, kind="stable")
    self._sorted = keys[self._order]
    self._figures = [part.figures for part in found]
    self._records: Any = None

  def __len__(self) -> int:
    return len(self._sorted)

  def summary(self) -> dict[str, Any]:
    """How much there is, and `figures`."""
    counts = {
      "rows": len(self),
      "tokens": self.tokens,
      "bytes": self.size,
      "bytes_per_token": self.size / max(1, self.tokens),
    }
    return counts | self.figures()

  def figures(self) -> dict[str, float]:
    """Means per token of what the format counted."""
    names = {name for one in self._figures for name in one}
    return {
      name: sum(one.get(name, 0.0) for one in self._figures)
      / max(1, self.tokens)
      for name in sorted(names)
    }

  def find(self, key: bytes) -> int | None:
    """The number of a row's record; None where there is none."""
    [head] = np.frombuffer(key[:8], "<u8")
    at = int(np.searchsorted(self._sorted, head))
    if at == len(self._sorted) or self._sorted[at] != head:
      return None
    return int(self._order[at])

  def read(self, key: bytes) -> bytes | None:
    """A row's record; None where there is none.

    Raises: UserError where it cannot be read.
    """
    number = self.find(key)
    if number is None:
      return None
    import grain

    try:
      if self._records is None:
        self._records = grain.sources.ArrayRecordDataSource(self._paths)
      found = self._records[number]
    except (ValueError, RuntimeError, IndexError, OSError) as error:
      raise types.UserError(
        f"{self.directory}: record {number} cannot be read ({error}); a file "
        "is damaged: remove it with its list, and cache the rows again"
      ) from error
    if found[: len(key)] != key:
      raise types.UserError(
        f"{self.directory}: record {number} is of another row than its list "
        "says; the files do not belong together: cache the rows again"
      )
    return found[len(key) :]


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
  """What a cache says of itself.

  Raises: UserError for what is no cache, or one of another version.
  """
  path = directory / MANIFEST
  if not path.is_file():
    there = "holds no cache" if directory.is_dir() else "does not exist"
    raise types.UserError(
      f"{directory}: {there}; `jdistill cache CONFIG --to DIR` writes one"
    )
  try:
    found = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise types.UserError(f"{path}: is no manifest ({error})") from error
  if not isinstance(found, dict) or "version" not in found:
    raise types.UserError(f"{path}: is no manifest: it says no version")
  version = found["version"]
  if version != VERSION:
    raise types.UserError(
      f"{path}: is of version {version}, and this jdistill reads {VERSION}; "
      "write the cache again"
    )
  for name, kinds in _SAYS.items():
    if not isinstance(found.get(name), kinds):
      raise types.UserError(
        f"{path}: its {name} is {found.get(name)!r}; write the cache again"
      )
  return found


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON atomically."""
  half = path.with_name(path.name + ".tmp")
  half.write_text(json.dumps(value))
  os.replace(half, path)


def clear_halves(directory: pathlib.Path) -> None:
  """Removes what a killed writer left open."""
  for path in [*directory.glob("*.half"), *directory.glob("*.tmp")]:
    with contextlib.suppress(FileNotFoundError):
      path.unlink()
