# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Text for language models: mixtures of corpora as rows of tokens."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from jdistill import types
from jdistill.data import (
  base,
  corpus,
  encode,
  files,
  layout,
  loader,
  records,
  store,
)

_PIECES = 1 << 14
"""Pieces whose targets are counted at once."""


@dataclasses.dataclass(frozen=True)
class TextData(base.Data):
  """Corpora, and how their documents become batches; see `Data` for the rest.

  Attributes:
    sources: the corpora. With several, their weights say how large a share of
      the rows each gives; with `epochs` set, every row counts once instead.
    seq_len: tokens of a row.
    packing: `pack` puts several documents in a row, `pad` only one. Either
      way a document is cut only where it is longer than a row.
    bos: whether a document starts with the tokenizer's BOS token; `auto` does
      what the tokenizer does by itself.
    eos: whether a document of text ends with its EOS token, as a target.
  """

  sources: tuple[corpus.Source, ...] = (corpus.Source(),)
  seq_len: int = 1024
  packing: layout.Packing = "pack"
  bos: encode.Bos = "auto"
  eos: bool = True

  needs_tokenizer: ClassVar[bool] = True

  @property
  def title(self) -> str:
    return " + ".join(f"{s.ref}{s.split}" for s in self.sources)

  def open(
    self,
    tokenizer: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
  ) -> base.Opened:
    """Opens, tokenises and packs the corpora; see `Data.open`."""
    check(self)
    if tokenizer is None and any(s.format != "tokens" for s in self.sources):
      raise types.UserError(
        "data.sources: text and chats need a tokenizer; name a model that has "
        "one"
      )
    corpora = [corpus.open_corpus(source) for source in self.sources]
    return _open(self, corpora, tokenizer, cache_dir)


class TokenRows:
  """Rows of one corpus, laid out when asked for."""

  def __init__(
    self,
    tokens: store.TokenStore,
    seq_len: int,
    how: layout.Packing,
    *,
    not_a_target: int | None = None,
  ):
    self._store = tokens
    self._seq_len = seq_len
    self._not_a_target = not_a_target
    pieces = layout.cut(tokens.offsets, seq_len)
    learnt = self._learnt(pieces)
    pieces = pieces.take(learnt > 0)
    self._pieces = pieces
    self._bins = (
      layout.best_fit(pieces.length, seq_len)
      if how == "pack"
      else layout.one_each(pieces.length)
    )
    self.first_id = 0
    self.num_tokens = int(learnt.sum())
    self.num_places = int(pieces.length.sum())

  def __len__(self) -> int:
    return len(self._bins)

  def __getitem__(self, index: int) -> dict[str, Any]:
    members = self._bins[index]
    row = layout.lay_out(
      self._store.tokens,
      self._pieces.start[members].tolist(),
      self._pieces.length[members].tolist(),
      self._seq_len,
      self._store.learn,
    )
    if self._not_a_target is not None:
      row["mask"] *= row["targets"] != self._not_a_target
    return {**row, "example_id": np.int32(self.first_id + index)}

  def answers(self) -> np.ndarray:
    """[N, 2] where the last run of learnt tokens of each row starts and ends.

    In places of the text; for rows of one document.
    """
    if self._all_count:
      length = self._pieces.length
      return np.stack([np.ones_like(length), length + 1], axis=1)
    found = [np.zeros((0, 2), np.int64)]
    for starts, ends, counted in self._counted(self._pieces):
      at = np.arange(len(counted))
      last_yes = np.maximum.accumulate(np.where(counted, at, -1))
      last_no = np.maximum.accumulate(np.where(counted, -1, at))
      last = last_yes[ends - 1]  # there is one: pieces without it are left out
      first = np.maximum(last_no[last] + 1, starts)
      # The first target of a piece is the text's second token.
      found.append(np.stack([first, last + 1], axis=1) - starts[:, None] + 1)
    return np.concatenate(found)

  @property
  def _all_count(self) -> bool:
    return self._store.learn is None and self._not_a_target is None

  def _learnt(self, pieces: layout.Pieces) -> np.ndarray:
    """[N] how many targets of each piece count in the loss."""
    if self._all_count:
      return pieces.length
    counts = [np.zeros(0, np.int64)]
    for starts, ends, counted in self._counted(pieces):
      before = np.concatenate([[0], np.cumsum(counted, dtype=np.int64)])
      counts.append(before[ends] - before[starts])
    return np.concatenate(counts)

  def _counted(
    self, pieces: layout.Pieces
  ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of pieces: where the targets of each start and end in the block's
    tokens, and which of these count in the loss.

    In blocks, as arrays of a corpus of billions would take many times its size.
    """
    learn, never = self._store.learn, self._not_a_target
    for at in range(0, len(pieces), _PIECES):
      starts = pieces.start[at : at + _PIECES] + 1
      ends = starts + pieces.length[at : at + _PIECES]
      block = slice(int(starts[0]), int(ends[-1]))
      counted = np.ones(block.stop - block.start, bool)
      if learn is not None:
        counted &= learn[block] > 0
      if never is not None:
        counted &= self._store.tokens[block] != never
      yield starts - block.start, ends - block.start, counted


def from_documents(
  documents: Sequence[str] | Sequence[np.ndarray] | Sequence[Sequence[int]],
  *,
  seq_len: int,
  batch_size: int,
  seed: int = 0,
  tokenizer: Any = None,
  packing: layout.Packing = "pack",
  bos: encode.Bos = "auto",
  eos: bool = True,
  shuffle: bool = True,
  epochs: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> loader.Loader:
  """The same batches from texts, or from token ids, that the caller has.

  Args:
    documents: texts, which need a tokenizer, or ids, taken as they are.
    seq_len: see `TextData`, as for the other fields.
    batch_size: rows of the global batch.
    seed: chooses the order of the rows.
    tokenizer: from `jdistill.tokenizers.load`; None for ids.
    packing: several documents in a row, or one.
    bos: whether a text starts with BOS.
    eos: whether a text ends with EOS.
    shuffle: a new order in each pass.
    epochs: passes, or None for no end.
    process_index: this process among those that share the global batch.
    process_count: how many there are.
    num_threads: threads that prepare batches ahead; 0 for none.
  """
  texts = bool(len(documents)) and isinstance(documents[0], str)
  if texts and tokenizer is None:
    raise types.UserError("from_documents: texts need a tokenizer")
  kind: corpus.Format = "text" if texts else "tokens"
  data = TextData(
    (corpus.Source("documents", format=kind),),
    seq_len,
    packing,
    bos,
    eos,
    batch_size=batch_size,
    shuffle=shuffle,
    epochs=epochs,
  )
  check(data)
  held = corpus.Corpus(
    "from_documents",
    records.Memory(kind, documents, "the given documents"),
    np.arange(len(documents)),
    kind,
    kind,
  )
  return data.draw(
    _open(data, [held], tokenizer, None),
    seed=seed,
    process_index=process_index,
    process_count=process_count,
    num_threads=num_threads,
  )


def _open(
  data: TextData,
  corpora: Sequence[corpus.Corpus],
  tokenizer: Any,
  cache_dir: str | os.PathLike[str] | None,
) -> base.Opened:
  encoding = encode.Encoding(tokenizer, data.bos, data.eos)
  sources, keys, first_id = [], [], 0
  for held in corpora:
    key = encoding.key(held)
    tokens = store.cached(encoding.encode(held), key, cache_dir)
    rows = TokenRows(
      tokens,
      data.seq_len,
      data.packing,
      not_a_target=encoding.not_a_target,
    )
    if not len(rows):
      raise types.UserError(
        f"{held.label}: its {len(held)} documents give no token to learn; "
        "each needs two tokens or more, and in chats an assistant's turn"
      )
    rows.first_id = first_id
    first_id += len(rows)
    sources.append(rows)
    keys.append(key)
  places = sum(rows.num_places for rows in sources)
  facts = loader.Facts(
    num_rows=first_id,
    num_tokens=sum(rows.num_tokens for rows in sources),
    efficiency=places / (first_id * data.seq_len),
    example=layout.lay_out(np.zeros(0, np.int32), [], [], data.seq_len),
    identity=files.combine(keys, data.seq_len, data.packing),
  )
  weights = tuple(source.weight for source in data.sources)
  return base.Opened(sources, facts, weights)


def check(data: TextData) -> None:
  """Refuses what cannot be."""
  if data.seq_len < 2:
    raise types.UserError(
      f"data.seq_len is {data.seq_len}; expected at least 2"
    )
  if not data.sources:
    raise types.UserError("data.sources is empty; expected at least one source")
  for index, source in enumerate(data.sources):
    if not (math.isfinite(source.weight) and source.weight > 0):
      raise types.UserError(
        f"data.sources.{index}.weight is {source.weight}; expected a positive "
        "number (leave the source out to draw nothing from it)"
      )
