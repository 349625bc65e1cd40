# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of the same text in the tokens of two tokenizers."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jdistill import tokenizers, types
from jdistill.data import (
  alignment,
  base,
  corpus,
  encode,
  files,
  layout,
  loader,
  store,
  text,
)

VIEW = "teacher"
CHUNKS = ("student_chunks", "teacher_chunks")
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Aligned(base.Data):
  """Text for a student and a teacher with different tokenizers.

  A row has the same documents twice: as the student's tokens, and as the view
  "teacher". `student_chunks` [T] and `teacher_chunks` [R] say of each target
  which chunk of the text it belongs to, counted from 1 in the row, 0 for none:
  the targets of a chunk stand for the same bytes on both sides.

  A document that is longer than a row is cut where both tokenizers have an end
  of a token; its pieces overlap by two chunks, and each chunk counts once. The
  first token of a document counts on the sides that begin with BOS; its chunk
  if both do.

  Attributes:
    of: the text, by the student's tokenizer; its `seq_len` is T, and with
      `packing` "pack" documents share a row where both sides fit. Running text
      only: chats look different to every model.
    tokenizer: a model reference whose tokenizer is the teacher's.
    teacher_len: R, tokens of a row of the teacher.
  """

  of: text.TextData
  tokenizer: str
  teacher_len: int = 1024

  needs_tokenizer: ClassVar[bool] = True

  @property
  def seq_len(self) -> int:
    """Places of a row of the student."""
    return self.of.seq_len

  @property
  def title(self) -> str:
    return self.of.title

  def views(self) -> dict[str, int]:
    return {VIEW: self.teacher_len}

  def further(self) -> dict[str, tuple[int, ...]]:
    sizes = (self.seq_len, self.teacher_len)
    return {name: (size,) for name, size in zip(CHUNKS, sizes, strict=True)}

  def open(
    self,
    tokenizer: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
  ) -> base.Opened:
    """Opens, tokenises twice and aligns the corpora; see `Data.open`."""
    self._check()
    if tokenizer is None:
      raise types.UserError("data: text needs the student's tokenizer")
    pair = (tokenizer, self.teachers_tokenizer())
    encodings = [encode.Encoding(one, self.of.bos, self.of.eos) for one in pair]
    pieces = [tokenizers.token_pieces(one) for one in pair]
    sources, keys, first_id = [], [], 0
    for source in self.of.sources:
      held = corpus.open_corpus(source)
      own = [encoding.key(held) for encoding in encodings]
      stores = [
        store.cached(encoding.encode(held), key, cache_dir)
        for encoding, key in zip(encodings, own, strict=True)
      ]
      texts = Texts(stores, pieces, pair, ended=self.of.eos)
      key = files.combine(*own, "chunks", _VERSION)
      chunks = store.cached(texts.aligned(), key, cache_dir)
      rows = AlignedRows(
        stores,
        chunks,
        (self.seq_len, self.teacher_len),
        self.of.packing,
        [encoding.not_a_target for encoding in encodings],
        [one.bos_token_id for one in pair],
      )
      if not len(rows):
        raise types.UserError(
          f"{held.label}: the two tokenizers have no end of a token in common "
          f"within a row in any of its {len(held)} documents; take a longer "
          "seq_len and teacher_len, or other text"
        )
      rows.first_id = first_id
      first_id += len(rows)
      sources.append(rows)
      keys.append(key)
    facts = loader.Facts(
      num_rows=first_id,
      num_tokens=sum(rows.num_tokens for rows in sources),
      efficiency=sum(r.num_places for r in sources) / (first_id * self.seq_len),
      example=_row([[], []], (self.seq_len, self.teacher_len)),
      identity=files.combine(
        keys, self.seq_len, self.teacher_len, self.of.packing
      ),
    )
    weights = tuple(source.weight for source in self.of.sources)
    return base.Opened(sources, facts, weights)

  def teachers_tokenizer(self) -> Any:
    """The tokenizer of the view "teacher"; read once."""
    return _loaded(self.tokenizer)

  def _check(self) -> None:
    text.check(self.of)
    if self.teacher_len < 2:
      raise types.UserError(
        f"data.teacher_len is {self.teacher_len}; expected at least 2"
      )
    for index, source in enumerate(self.of.sources):
      if source.format != "text":
        raise types.UserError(
          f"data.of.sources.{index}.format is {source.format!r}; two "
          "tokenizers can be aligned on running text only: take 'text'"
        )


@functools.lru_cache(maxsize=4)
def _loaded(ref: str) -> Any:
  return tokenizers.load(ref)


class Texts:
  """The documents of a corpus in the tokens of both tokenizers."""

  def __init__(
    self,
    stores: Sequence[store.TokenStore],
    pieces: Sequence[Sequence[bytes]],
    pair: Sequence[Any],
    *,
    ended: bool,
  ):
    self._stores = stores
    self._pieces = pieces
    self._prepends = [tokenizers.prepends_space(one) for one in pair]
    self._ended = ended

  def aligned(self) -> Iterator[store.Encoded]:
    """For each document the chunks of the student's tokens, then of the
    teacher's."""
    for number in range(len(self._stores[0])):
      student, teacher = (self._bytes(side, number) for side in range(2))
      found = alignment.align(student, teacher, ended=self._ended)
      yield np.concatenate(found), None

  def _bytes(self, side: int, number: int) -> list[bytes]:
    table = self._pieces[side]
    found = [table[i] for i in _document(self._stores[side], number).tolist()]
    if self._prepends[side]:
      first = next((i for i, piece in enumerate(found) if piece), None)
      if first is not None:
        found[first] = found[first].removeprefix(b" ")
    return found


class _Side(NamedTuple):
  """A piece of a document in the tokens of one tokenizer."""

  tokens: np.ndarray
  chunks: np.ndarray
  learn: np.ndarray


class AlignedRows:
  """Rows of one corpus, laid out when asked for."""

  def __init__(
    self,
    stores: Sequence[store.TokenStore],
    chunks: store.TokenStore,
    sizes: tuple[int, int],
    how: layout.Packing,
    not_targets: Sequence[int | None],
    bos: Sequence[int | None],
  ):
    self._stores = stores
    self._chunks = chunks
    self._sizes = sizes
    self._not_targets = not_targets
    self._bos = bos
    self._pieces: list[tuple[int, alignment.Piece]] = []
    for number in range(len(stores[0])):
      prefixed = (self._begins(0, number), self._begins(1, number))
      found = alignment.cut(self._aligned(number), sizes, prefixed)
      self._pieces += [(number, piece) for piece in found]
    taken = np.array(
      [[b - a + p.continued * self._begins(i, n) - 1
        for i, (a, b) in enumerate(zip(p.start, p.stop, strict=True))]
       for n, p in self._pieces], np.int64).reshape(-1, 2)  # fmt: skip
    # What a piece takes of a row on the side where that is the larger share.
    share = np.maximum(taken[:, 0], -(-taken[:, 1] * sizes[0] // sizes[1]))
    self._bins = (
      layout.best_fit(np.maximum(share, 1), sizes[0])
      if how == "pack"
      else layout.one_each(share)
    )
    self.first_id = 0
    self.num_tokens = sum(p.learnt[0][1] - p.learnt[0][0]
                          for _, p in self._pieces)  # fmt: skip
    self.num_places = int(taken[:, 0].sum())

  def __len__(self) -> int:
    return len(self._bins)

  def __getitem__(self, index: int) -> dict[str, Any]:
    members = [self._sides(*self._pieces[i]) for i in self._bins[index]]
    sides = [[member[i] for member in members] for i in range(2)]
    row = _row(sides, self._sizes)
    return {**row, "example_id": np.int32(self.first_id + index)}

  def _aligned(self, number: int) -> alignment.Chunks:
    both = _document(self._chunks, number)
    own = len(_document(self._stores[0], number))
    return alignment.Chunks(both[:own], both[own:])

  def _begins(self, side: int, number: int) -> bool:
    """Whether the document begins with BOS."""
    ids = _document(self._stores[side], number)
    return bool(len(ids)) and int(ids[0]) == self._bos[side]

  def _sides(self, number: int, piece: alignment.Piece) -> list[_Side]:
    found, aligned = [], self._aligned(number)
    for i in range(2):
      part = slice(piece.start[i], piece.stop[i])
      at = np.arange(piece.start[i], piece.stop[i])
      document = _document(self._stores[i], number)
      tokens, chunks = document[part], aligned[i][part]
      low, high = piece.learnt[i]
      learn = (at >= low) & (at < high) & (tokens != self._never(i))
      low, high = piece.chunks
      chunks = np.where((chunks >= low) & (chunks <= high), chunks, 0)
      if piece.continued and self._begins(i, number):
        tokens = np.append(document[:1], tokens)
        chunks, learn = np.append(0, chunks), np.append(False, learn)
      found.append(_Side(tokens, chunks, learn))
    return _whole(found)

  def _never(self, side: int) -> int:
    never = self._not_targets[side]
    return -1 if never is None else never


def _document(held: store.TokenStore, number: int) -> np.ndarray:
  return held.tokens[held.offsets[number] : held.offsets[number + 1]]


def _whole(sides: Sequence[_Side]) -> list[_Side]:
  """The sides with those chunks, from 1, of which all tokens are targets."""
  whole = np.ones(max(int(s.chunks.max(initial=0)) for s in sides) + 1, bool)
  whole[0] = False
  for side in sides:
    targets = side.learn.copy()
    targets[:1] = False
    whole[side.chunks[~targets]] = False
  present = np.unique(sides[0].chunks)
  present = present[whole[present]]
  number = np.zeros(len(whole), np.int32)
  number[present] = np.arange(1, len(present) + 1)
  return [side._replace(chunks=number[side.chunks]) for side in sides]


def _row(
  sides: Sequence[Sequence[_Side]], sizes: tuple[int, int]
) -> dict[str, np.ndarray]:
  """One row: both views, and the chunks of their targets."""
  row = {}
  for name, prefix, side, size in zip(
    CHUNKS, ("", f"{VIEW}/"), sides, sizes, strict=True
  ):
    lengths = np.array([len(s.tokens) for s in side], np.int64)
    starts = np.cumsum(lengths) - lengths
    last = np.cumsum([0, *(int(s.chunks.max(initial=0)) for s in side)])
    flat = [
      np.concatenate([np.zeros(0, np.int32), *arrays])
      for arrays in (
        [s.tokens for s in side],
        [s.learn for s in side],
        [
          np.where(s.chunks > 0, s.chunks + before, 0)
          for s, before in zip(side, last[:-1], strict=True)
        ],
      )
    ]
    tokens, learn, chunks = flat
    view = layout.lay_out(tokens, starts, lengths - 1, size, learn)
    row |= {f"{prefix}{k}": v for k, v in view.items()}
    row[name] = layout.lay_out(chunks, starts, lengths - 1, size)["targets"]
  return row
