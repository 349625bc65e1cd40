# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Text of one row as it is written: whole characters, cut at stop strings."""

from collections.abc import Sequence
from typing import Any

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
