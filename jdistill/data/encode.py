# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Documents as token ids, and which of the ids are learnt."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from jdistill import types
from jdistill.data import corpus, files, store

Bos = Literal["auto", "always", "never"]

_CHARACTERS = 1 << 20
"""Text handed to the tokenizer at once: enough to keep its threads busy."""


class Encoding:
  """Turns the documents of any corpus into ids, by one tokenizer.

  Text gets BOS and EOS as told. Chats are rendered by the tokenizer's template
  and only what assistants say is learnt. Ids are taken as they are.

  Args:
    tokenizer: from `jdistill.tokenizers.load`; None where all is ids already.
    bos: `auto` does what the tokenizer does by itself.
    eos: whether text ends with EOS.
  """

  def __init__(self, tokenizer: Any, bos: Bos, eos: bool):
    self._tokenizer = tokenizer
    self._bos = bos
    self._eos = eos

  @property
  def not_a_target(self) -> int | None:
    """BOS, which no text predicts, unless it serves as EOS too."""
    if self._tokenizer is None:
      return None
    bos = self._tokenizer.bos_id
    return None if bos == self._tokenizer.eos_id else bos

  def key(self, documents: corpus.Corpus) -> str:
    """A digest of everything that the ids depend on."""
    tokenizer = self._tokenizer
    return files.combine(
      documents.identity,
      None if tokenizer is None else tokenizer.fingerprint,
      (self._bos, self._eos) if documents.format == "text" else None,
    )

  def encode(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    """The ids of each document, in order.

    Raises:
      UserError: for a document that cannot be read or rendered, or an id
        outside the vocabulary.
    """
    if documents.format == "text":
      yield from self._texts(documents)
    elif documents.format == "chat":
      yield from self._chats(documents)
    else:
      yield from self._ids(documents)

  def _texts(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    from jdistill import tokenizers

    texts = (documents[i] for i in range(len(documents)))
    for group in _grouped(texts, _CHARACTERS):
      for ids in tokenizers.encode_documents(
        self._tokenizer, group, bos=self._bos, eos=self._eos
      ):
        yield np.asarray(ids, np.int32), None

  def _chats(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    from jdistill import tokenizers

    for number in range(len(documents)):
      try:
        ids, learn = tokenizers.render_chat(self._tokenizer, documents[number])
      except types.UserError as e:
        raise types.UserError(f"{documents.where(number)}: {e}") from e
      yield np.asarray(ids, np.int32), np.asarray(learn, np.uint8)

  def _ids(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    size = None if self._tokenizer is None else self._tokenizer.vocab_size
    for number in range(len(documents)):
      ids = documents[number]
      if len(ids):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= (1 << 31 if size is None else size):
          raise types.UserError(
            f"{documents.where(number)}: token id {low if low < 0 else high} "
            f"is outside the vocabulary of {size or 1 << 31}; the tokens were "
            "made by another tokenizer"
          )
      yield ids.astype(np.int32), None


def _grouped(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
  """Groups texts so that each group has about so many characters."""
  group: list[str] = []
  size = 0
  for text in texts:
    group.append(text)
    size += len(text)
    if size >= characters:
      yield group
      group, size = [], 0
  if group:
    yield group
