# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Text of one row as it is written: whole characters, cut at stop strings."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jdistill import types

_BROKEN = "\ufffd"  # what a tokenizer writes for a part of a character


class Text:
  """Tokens that become text, up to the first stop string.

  Attributes:
    tokens: those written so far; once stopped, those whose text lies wholly
      before the stop string.
    text: theirs, and what the token that the stop string begins in has before
      it; special tokens are left out.
    stopped: whether a stop string was found.
  """

  def __init__(self, tokenizer: Any, stop: Sequence[str] = ()):
    self._tokenizer = tokenizer
    self._stop = tuple(stop)
    self._shown = 0
    self.tokens: list[int] = []
    self.text = ""
    self.stopped = False

  def add(self, tokens: Sequence[int]) -> None:
    """Goes on with these; nothing is added behind a stop string."""
    if self.stopped or not tokens:
      return
    searched = self._whole()
    self.tokens += map(int, tokens)
    self.text = self._decode(len(self.tokens))
    # It may begin in what was there already.
    longest = max(map(len, self._stop), default=0)
    start = max(0, searched - longest)
    found = [self.text.find(stop, start) for stop in self._stop]
    cut = min((at for at in found if at >= 0), default=None)
    if cut is None:
      return
    self.text, self.stopped = self.text[:cut], True
    while self.tokens and len(self._decode(len(self.tokens))) > cut:
      self.tokens.pop()

  def fresh(self, *, last: bool = False) -> str:
    """What later tokens can no longer change and was not asked for yet.

    Args:
      last: no tokens will follow, so that nothing is held back.
    """
    end = len(self.text)
    if not (last or self.stopped):
      end = self._before_stop(self._whole())
    fresh = self.text[self._shown : end]
    self._shown = max(self._shown, end)
    return fresh

  def _decode(self, count: int) -> str:
    tokens = self.tokens[:count]
    return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

  def _whole(self) -> int:
    """Where a character begins whose other bytes are still to come."""
    return len(self.text.rstrip(_BROKEN))

  def _before_stop(self, end: int) -> int:
    """Where, before `end`, a stop string begins that may become complete."""
    text = self.text[:end]
    starts = [
      end - size
      for stop in self._stop
      for size in range(1, len(stop))
      if text.endswith(stop[:size])
    ]
    return min(starts, default=end)


class Rows:
  """What the host knows of texts while they are written.

  Args:
    count: how many there are.
    stop: texts before which each is cut.
    tokenizer: turns tokens into text; None if nobody asks for it.
    on_token: called with (row, token) for each token.
    on_text: called with (row, text) as text becomes certain.
  Raises: UserError for an empty text in `stop`, and without a tokenizer that
    is needed.
  """

  def __init__(
    self,
    count: int,
    stop: Sequence[str] = (),
    tokenizer: Any = None,
    on_token: Callable[[int, int], None] | None = None,
    on_text: Callable[[int, str], None] | None = None,
  ):
    if tokenizer is None and (stop or on_text):
      raise types.UserError("generate: stop and on_text need tokenizer=")
    if not all(stop):
      raise types.UserError(f"generate: found an empty text in stop={stop!r}")
    self._texts = [Text(tokenizer, stop) for _ in range(count)]
    self._read = np.zeros(count, np.int32)
    self._on_token, self._on_text = on_token, on_text
    self.have_text = tokenizer is not None
    self.watched = bool(stop or on_token or on_text)

  def take(self, tokens: Any, counts: Any) -> np.ndarray:
    """Reads what is new.

    Args:
      tokens: [B, N] written so far.
      counts: [B] how many they are.
    Returns: [B] bool, which texts have come to a stop string.
    """
    tokens, counts = np.asarray(tokens), np.array(counts)
    for row, text in enumerate(self._texts):
      new = tokens[row, self._read[row] : counts[row]].tolist()
      if self.have_text:
        text.add(new)
      if self._on_token is not None:
        for token in new:
          self._on_token(row, token)
      if self._on_text is not None and (fresh := text.fresh()):
        self._on_text(row, fresh)
    self._read = counts
    return np.array([text.stopped for text in self._texts])

  def finished(self, tokens: Any, counts: Any) -> list[Text]:
    """The texts once all is written; arguments as of `take`."""
    self.take(tokens, counts)
    if self._on_text is not None:
      for row, text in enumerate(self._texts):
        if fresh := text.fresh(last=True):
          self._on_text(row, fresh)
    return self._texts
