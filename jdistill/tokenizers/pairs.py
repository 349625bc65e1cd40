# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What the ids of one tokenizer are to those of another."""

import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jdistill.tokenizers import documents, vocabulary
from jdistill.types import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

_ROLES = ("pad", "unk", "eos", "bos")
"""Special tokens with the same use everywhere; the last is the surest."""
_VERSION = 1


def boundary(
  tokenizer: "PreTrainedTokenizerFast", vocab_size: int
) -> np.ndarray:
  """Which ids begin where no word goes on: bool [V].

  True for text that begins with a space, a tab or a new line, and for special
  tokens.

  Args:
    tokenizer: one that keeps all bytes of a text.
    vocab_size: V, ids of the model's head.
  Raises: UserError as `token_pieces`, or where no id is such.
  """
  found = np.zeros(vocab_size, bool)
  pieces = documents.token_pieces(tokenizer)[:vocab_size]
  found[: len(pieces)] = [piece[:1] in (b" ", b"\t", b"\n") and bool(piece)
                          for piece in pieces]  # fmt: skip
  special = np.array(tokenizer.all_special_ids, np.int64)
  found[special[special < vocab_size]] = True
  if not found.any():
    raise UserError(
      f"tokenizer {tokenizer.name_or_path or '(unnamed)'} has no token that "
      "begins with a space or ends a text, so nothing says where words end"
    )
  return found


def same(
  student: "PreTrainedTokenizerFast",
  teacher: "PreTrainedTokenizerFast",
  vocab_size: int,
) -> np.ndarray:
  """The teacher's id that stands for the same bytes: int32 [V], -1 for none.

  Special tokens are the same where they have the same use (BOS, EOS, ...), or
  are written the same.

  Args:
    student, teacher: tokenizers that keep all bytes of a text.
    vocab_size: V, ids of the student's head.
  Raises: UserError as `token_pieces`.
  """
  found = np.full(vocab_size, -1, np.int32)
  ids = _by_piece(documents.token_pieces(teacher))
  pieces = documents.token_pieces(student)[:vocab_size]
  for index, piece in enumerate(pieces):
    found[index] = ids.get(piece, -1)
  for index, other in _special(student, teacher).items():
    if index < vocab_size:
      found[index] = other
  return found


def nearest(
  student: "PreTrainedTokenizerFast",
  teacher: "PreTrainedTokenizerFast",
  vocab_size: int,
  cache_dir: str | os.PathLike[str] | None = None,
) -> np.ndarray:
  """The teacher's id with the fewest edits of bytes between: int32 [V].

  The same where there is one. Of several at the same distance it is the one
  with the smallest id. -1 for ids that stand for nothing.

  Args:
    student, teacher: tokenizers that keep all bytes of a text.
    vocab_size: V, ids of the student's head.
    cache_dir: where the map is kept, as it takes a minute to find; None keeps
      none.
  Raises: UserError as `token_pieces`.
  """
  names = [vocabulary.fingerprint(one)[:16] for one in (student, teacher)]
  path = None
  if cache_dir is not None:
    name = f"nearest-{_VERSION}-{names[0]}-{names[1]}-{vocab_size}.npy"
    path = pathlib.Path(cache_dir) / name
    if path.is_file():
      return np.load(path)
  found = same(student, teacher, vocab_size)
  pieces = documents.token_pieces(student)[:vocab_size]
  search = _Search(documents.token_pieces(teacher))
  for index, piece in enumerate(pieces):
    if found[index] < 0 and piece:
      found[index] = search.nearest(piece)
  for index in student.all_special_ids:
    if index < vocab_size and found[index] < 0 and teacher.eos_token_id:
      found[index] = teacher.eos_token_id
  if path is not None:
    _keep(path, found)
  return found


def parts(
  new: "PreTrainedTokenizerFast", old: "PreTrainedTokenizerFast"
) -> tuple[np.ndarray, np.ndarray]:
  """The old tokens that each new one is made of, for `surgery.retokenise`.

  The same token where there is one; else those that the old tokenizer makes of
  its text or, where that is no whole characters, the longest that fit.

  Args:
    new, old: tokenizers that keep all bytes of a text.
  Returns: ids [V, K] int32 and weights [V, K] float32, equal for the tokens of
    each; all 0 for special tokens that the old one does not have.
  Raises: UserError as `token_pieces`.
  """
  pieces = documents.token_pieces(new)
  found = [[i] if i >= 0 else [] for i in same(new, old, len(pieces)).tolist()]
  ids = _by_piece(documents.token_pieces(old))
  plain = not documents.prepends_space(old)
  for index, piece in enumerate(pieces):
    if found[index] or not piece:
      continue
    try:
      text = piece.decode() if plain else ""
    except UnicodeDecodeError:
      text = ""
    encoded = old.backend_tokenizer.encode(text, add_special_tokens=False)
    found[index] = encoded.ids or _longest(piece, ids)
  width = max(map(len, found))
  table = np.zeros((len(pieces), width), np.int32)
  weights = np.zeros((len(pieces), width), np.float32)
  for index, own in enumerate(found):
    table[index, : len(own)] = own
    weights[index, : len(own)] = 1 / max(1, len(own))
  return table, weights


def _longest(piece: bytes, ids: dict[bytes, int]) -> list[int]:
  """Tokens that make up a piece, from the left the longest that fits."""
  found, at = [], 0
  while at < len(piece):
    ends = range(len(piece), at, -1)
    end = next((e for e in ends if piece[at:e] in ids), at + 1)
    found += [ids[piece[at:end]]] if piece[at:end] in ids else []
    at = end
  return found


def _keep(path: pathlib.Path, found: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
    np.save(file, found)
  os.replace(file.name, path)


def _by_piece(pieces: list[bytes]) -> dict[bytes, int]:
  """The smallest id of each piece of text."""
  ids: dict[bytes, int] = {}
  for index, piece in enumerate(pieces):
    if piece:
      ids.setdefault(piece, index)
  return ids


def _special(
  student: "PreTrainedTokenizerFast", teacher: "PreTrainedTokenizerFast"
) -> dict[int, int]:
  """The teacher's special tokens for the student's."""
  theirs = {
    str(token): index
    for index, token in teacher.added_tokens_decoder.items()
    if token.special
  }
  found = {
    index: theirs[str(token)]
    for index, token in student.added_tokens_decoder.items()
    if token.special and str(token) in theirs
  }
  for role in _ROLES:
    own, other = (getattr(t, f"{role}_token_id") for t in (student, teacher))
    if own is not None and other is not None:
      found[own] = other
  return found


class _Search:
  """Finds the string nearest to another one.

  Strings that have few bytes in common cannot be near: those that may be are
  measured in the order of how near they may be.
  """

  def __init__(self, pieces: list[bytes]):
    ids = _by_piece(pieces)
    self._ids = np.array(list(ids.values()), np.int64)
    self._pieces = list(ids)
    self._lengths = np.array([len(p) for p in self._pieces], np.int64)
    width = int(self._lengths.max(initial=1))
    self._bytes = np.zeros((len(self._pieces), width), np.uint8)
    for row, piece in enumerate(self._pieces):
      self._bytes[row, : len(piece)] = np.frombuffer(piece, np.uint8)
    self._counts: dict[int, np.ndarray] = {}

  def nearest(self, piece: bytes) -> int:
    best, at = len(piece) + 1, -1
    for least, rows in self._candidates(piece):
      if least > best:
        break
      if least == best:  # such a one can only be as near
        rows = rows[self._ids[rows] < at]
      if len(rows):
        distance = _edits(piece, self._bytes[rows], self._lengths[rows])
        low = int(distance.min())
        first = int(self._ids[rows[distance == low]].min())
        if low < best or (low == best and first < at):
          best, at = low, first
    return at

  def _candidates(self, piece: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """Rows by the fewest edits that they may be away, the nearest first."""
    common = np.zeros(len(self._pieces), np.int64)
    for byte in set(piece):
      common += np.minimum(self._count(byte), piece.count(byte))
    least = np.maximum(self._lengths, len(piece)) - common
    for edits in range(len(piece) + 1):
      yield edits, np.flatnonzero(least == edits)

  def _count(self, byte: int) -> np.ndarray:
    if byte not in self._counts:
      real = np.arange(self._bytes.shape[1]) < self._lengths[:, None]
      count = ((self._bytes == byte) & real).sum(1)
      self._counts[byte] = count.astype(np.uint8)
    return self._counts[byte]


def _edits(piece: bytes, others: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Levenshtein's distance of one string from several, [N]."""
  longest = int(lengths.max())
  row = np.broadcast_to(np.arange(longest + 1), (len(others), longest + 1))
  row = row.astype(np.int64)
  for number, byte in enumerate(piece, start=1):
    new = np.empty_like(row)
    new[:, 0] = number
    changed = row[:, :-1] + (others[:, :longest] != byte)
    new[:, 1:] = np.minimum(changed, row[:, 1:] + 1)
    # What an insertion may save, from the left on.
    at = np.arange(longest + 1)
    row = np.minimum.accumulate(new - at, axis=1) + at
  return row[np.arange(len(others)), lengths]
