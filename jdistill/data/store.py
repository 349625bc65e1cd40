# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenised documents in one flat array, on disk or in memory.

An entry is a directory named by the digest of everything that its content
depends on. It is written beside its place and renamed into it, so it is there
whole or not at all; what does not match its own summary is made anew.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable

import numpy as np

from jdistill.data import files

_VERSION = 1
_DTYPES = {"tokens": np.int32, "learn": np.uint8, "offsets": np.int64}

Encoded = tuple[np.ndarray, np.ndarray | None]
"""The ids of one document and, per id, whether it is learnt (None: all)."""


@dataclasses.dataclass(frozen=True)
class TokenStore:
  """Tokens of all documents; `d` is `tokens[offsets[d]:offsets[d + 1]]`."""

  tokens: np.ndarray  # [N] int32
  offsets: np.ndarray  # [D + 1] int64
  learn: np.ndarray | None  # [N] uint8, None where every token is learnt

  def __len__(self) -> int:
    return len(self.offsets) - 1


def cached(
  documents: Iterable[Encoded],
  key: str,
  cache_dir: str | os.PathLike[str] | None,
) -> TokenStore:
  """The store of `documents`, read back where it has been made before.

  Args:
    documents: read only where there is no sound entry.
    key: identifies the content; a hex digest.
    cache_dir: where entries lie; None keeps the tokens in memory.
  """
  if cache_dir is None:
    return in_memory(documents)
  entry = pathlib.Path(cache_dir) / key
  store = _load(entry)
  if store is None:
    _write(documents, entry)
    store = _load(entry)
  if store is None:
    raise OSError(f"{entry}: what was just written cannot be read back")
  return store


def in_memory(documents: Iterable[Encoded]) -> TokenStore:
  """The store of `documents` as arrays of this process."""
  tokens, learn, lengths = [], [], [0]
  for ids, wanted in documents:
    tokens.append(ids)
    learn.append(wanted)
    lengths.append(len(ids))
  masked = any(wanted is not None for wanted in learn)
  masks = [
    np.ones(len(ids), np.uint8) if wanted is None else wanted
    for ids, wanted in zip(tokens, learn, strict=True)
  ]
  empty = [np.zeros(0, np.int32)]
  return TokenStore(
    np.concatenate(tokens or empty).astype(np.int32),
    np.cumsum(lengths),
    np.concatenate(masks).astype(np.uint8) if masked else None,
  )


def _load(entry: pathlib.Path) -> TokenStore | None:
  """The entry's store, or None where it is absent or damaged."""
  try:
    summary = json.loads((entry / "summary.json").read_text())
    if summary["version"] != _VERSION:
      return None
    for name, found in summary["files"].items():
      if files.digest(entry / name, by_time=False) != found:
        return None
    arrays = {
      name: np.memmap(entry / name, _DTYPES[name], "r")
      if os.path.getsize(entry / name)
      else np.zeros(0, _DTYPES[name])
      for name in summary["files"]
    }
  except (OSError, ValueError, KeyError, TypeError):
    return None
  offsets = np.array(arrays["offsets"])
  return TokenStore(arrays["tokens"], offsets, arrays.get("learn"))


def _write(documents: Iterable[Encoded], entry: pathlib.Path) -> None:
  entry.parent.mkdir(parents=True, exist_ok=True)
  made = pathlib.Path(
    tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent)
  )
  try:
    _fill(documents, made)
    _put_in_place(made, entry)
  finally:
    shutil.rmtree(made, ignore_errors=True)


def _fill(documents: Iterable[Encoded], made: pathlib.Path) -> None:
  lengths, masked = [0], False
  with (
    open(made / "tokens", "wb") as tokens,
    open(made / "learn", "wb") as mask,
  ):
    for ids, wanted in documents:
      tokens.write(np.ascontiguousarray(ids, np.int32).data)
      masked |= wanted is not None
      wanted = np.ones(len(ids)) if wanted is None else wanted
      mask.write(np.ascontiguousarray(wanted, np.uint8).data)
      lengths.append(len(ids))
  np.cumsum(lengths, dtype=np.int64).tofile(made / "offsets")
  if not masked:
    os.remove(made / "learn")
  found = {
    p.name: files.digest(p, by_time=False) for p in sorted(made.iterdir())
  }
  summary = {"version": _VERSION, "files": found}
  (made / "summary.json").write_text(json.dumps(summary))


def _put_in_place(made: pathlib.Path, entry: pathlib.Path) -> None:
  try:
    os.rename(made, entry)
  except OSError:
    # Something is there: a damaged entry goes, another process's stays.
    if _load(entry) is None:
      damaged = tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent)
      os.rename(entry, damaged)
      shutil.rmtree(damaged, ignore_errors=True)
      os.rename(made, entry)
