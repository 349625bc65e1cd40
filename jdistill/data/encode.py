# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Documents as token ids, and which of the ids are learnt."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from jdistill import tokenizers, types
from jdistill.data import corpus, files, store

Bos = Literal["auto", "always", "never"]

_ADD_BOS = {"auto": None, "always": True, "never": False}
_CHARACTERS = 1 << 20
"""Text handed to the tokenizer at once: enough to keep its threads busy."""


class Encoding:
  """Turns the documents of any corpus into ids, by one tokenizer.

  Text gets BOS and EOS as told. Chats are rendered by the tokenizer's template
  and only what assistants say is learnt. Of completions only the answer is, and
  what ends it where it is whole. Ids are taken as they are.

  Args:
    tokenizer: from `jdistill.tokenizers.load`; None where all is ids already.
    bos: `auto` does what the tokenizer does by itself.
    eos: whether text ends with EOS.
  """

  def __init__(self, tokenizer: Any, bos: Bos, eos: bool):
    if tokenizer is not None:
      _check(tokenizer, bos, eos)
    self._tokenizer = tokenizer
    self._bos = bos
    self._eos = eos

  @property
  def not_a_target(self) -> int | None:
    """BOS, which no text predicts, unless it serves as EOS too."""
    if self._tokenizer is None:
      return None
    bos = self._tokenizer.bos_token_id
    return None if bos == self._tokenizer.eos_token_id else bos

  def key(self, documents: corpus.Corpus) -> str:
    """A digest of everything that the ids depend on."""
    if documents.format == "tokens":
      return documents.identity
    tokenizer = self._tokenizer
    # Merges, normalisers and the template count, not the vocabulary alone.
    how: Any = tokenizer.chat_template
    if documents.format != "chat":
      how = (self._bos, self._eos)
    if documents.format == "completion":
      how = (*how, tokenizer.chat_template)
    return files.combine(
      documents.identity,
      tokenizer.backend_tokenizer.to_str(),
      tokenizer.bos_token_id,
      tokenizer.eos_token_id,
      how,
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
    elif documents.format == "completion":
      yield from self._completions(documents)
    else:
      yield from self._ids(documents)

  def _texts(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    texts = (documents[i] for i in range(len(documents)))
    for group in _grouped(texts, _CHARACTERS):
      for ids in tokenizers.encode_documents(
        self._tokenizer,
        group,
        add_bos=_ADD_BOS[self._bos],
        add_eos=self._eos,
      ):
        yield np.asarray(ids, np.int32), None

  def _chats(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    for number in range(len(documents)):
      try:
        ids, learn = tokenizers.render_chat(self._tokenizer, documents[number])
      except types.UserError as e:
        raise types.UserError(f"{documents.where(number)}: {e}") from e
      yield np.asarray(ids, np.int32), np.asarray(learn, np.uint8)

  def _completions(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    for number in range(len(documents)):
      found = documents[number]
      if isinstance(found.prompt, str):
        yield self._continued(found.prompt, found)
        continue
      turns = [*found.prompt, {"role": "assistant", "content": found.answer}]
      try:
        ids, learn = tokenizers.render_chat(self._tokenizer, turns)
      except types.UserError as e:
        raise types.UserError(f"{documents.where(number)}: {e}") from e
      # Of the assistant's turns the last is the answer.
      learnt = np.flatnonzero(learn)
      end = int(learnt[-1]) + 1
      gaps = np.flatnonzero(np.diff(learnt) > 1)
      start = int(learnt[gaps[-1] + 1] if len(gaps) else learnt[0])
      special = self._tokenizer.all_special_ids
      if found.ended is False and int(ids[end - 1]) in special:
        end -= 1
      ids = np.asarray(ids[:end], np.int32)
      yield ids, (np.arange(end) >= start).astype(np.uint8)

  def _continued(self, text: str, found: corpus.Completion) -> store.Encoded:
    """Prompt and answer apart, as the answer was written."""
    encode = functools.partial(tokenizers.encode_documents, self._tokenizer)
    ended = self._eos if found.ended is None else self._eos and found.ended
    [prompt] = encode([text], add_bos=_ADD_BOS[self._bos],
                      add_eos=False)  # fmt: skip
    [answer] = encode([found.answer], add_bos=False, add_eos=ended)
    ids = np.concatenate([prompt, answer]).astype(np.int32)
    return ids, (np.arange(len(ids)) >= len(prompt)).astype(np.uint8)

  def _ids(self, documents: corpus.Corpus) -> Iterator[store.Encoded]:
    size = 1 << 31
    if self._tokenizer is not None:
      size = max(self._tokenizer.get_vocab().values()) + 1
    for number in range(len(documents)):
      ids = documents[number]
      if len(ids):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= size:
          raise types.UserError(
            f"{documents.where(number)}: token id {low if low < 0 else high} "
            f"is outside the vocabulary of {size}; the tokens were "
            "made by another tokenizer"
          )
      yield ids.astype(np.int32), None


def _check(tokenizer: Any, bos: Bos, eos: bool) -> None:
  name = tokenizer.name_or_path or "(unnamed)"
  if bos == "always" and tokenizer.bos_token_id is None:
    raise types.UserError(
      f"data.bos is 'always', but the tokenizer {name} has no BOS token; set "
      "data.bos to 'auto'"
    )
  if eos and tokenizer.eos_token_id is None:
    raise types.UserError(
      f"data.eos is set, but the tokenizer {name} has no EOS token; turn "
      "data.eos off"
    )


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
