# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Documents as prompts, which a model continues, beside their own answers."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdistill import types
from jdistill.data import base, files, loader, mixture


@dataclasses.dataclass(frozen=True)
class Prompts(base.Data):
  """Rows of other data, each parted into a prompt and its answer.

  A row has what `of` gives (its own answer, to learn from as it is) and beside
  it `prompt` [P], filled with 0 behind, and `prompt_length`. The answer is the
  last run of tokens that are learnt: the assistant's last turn of a chat. Of
  documents that are learnt from their start, the prompt is the first
  `prompt_tokens` tokens. Only the answer counts in the loss.

  Attributes:
    of: text, chats or a bed, one document in a row (`packing="pad"`).
    prompt_tokens: P, the longest prompt; rows with a longer one are left out,
      and so are documents without an answer.
  """

  of: base.Data
  prompt_tokens: int = 64

  @property
  def needs_tokenizer(self) -> bool:  # pyrefly: ignore[bad-override]
    return self.of.needs_tokenizer

  @property
  def seq_len(self) -> int:
    """Places of a row: those of `of`."""
    return int(getattr(self.of, "seq_len", 0))

  @property
  def title(self) -> str:
    return self.of.title

  @property
  def vocab_size(self) -> int | None:
    return self.of.vocab_size

  @property
  def end_ids(self) -> tuple[int, ...]:
    return self.of.end_ids

  def further(self) -> dict[str, tuple[int, ...]]:
    return {"prompt": (self.prompt_tokens,), "prompt_length": ()}

  def pieces(self, tokens: np.ndarray) -> list[str]:
    return self.of.pieces(tokens)

  def open(
    self,
    tokenizer: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
  ) -> base.Opened:
    """Opens `of` and finds its prompts; see `Data.open`."""
    _check(self)
    opened = self.of.open(tokenizer, cache_dir)
    sources, first_id = [], 0
    for rows in opened.sources:
      found = PromptRows(rows, self.prompt_tokens, first_id)
      if not len(found):
        raise types.UserError(
          f"{self.title}: none of {len(rows)} rows has a prompt of 1 to "
          f"{self.prompt_tokens} tokens and an answer behind it; raise "
          "prompt_tokens, or take longer documents"
        )
      first_id += len(found)
      sources.append(found)
    row = opened.facts.example
    facts = loader.Facts(
      num_rows=first_id,
      num_tokens=sum(rows.num_tokens for rows in sources),
      efficiency=opened.facts.efficiency,
      example={**row, **_prompt(row, 0, self.prompt_tokens)},
      identity=files.combine(opened.facts.identity, self.prompt_tokens),
    )
    return base.Opened(sources, facts, opened.weights)


class PromptRows:
  """The rows of one source that have a prompt and an answer."""

  def __init__(self, rows: mixture.Rows, prompt_tokens: int, first_id: int = 0):
    self._rows = rows
    self._width = prompt_tokens
    self._first_id = first_id
    spans = [_answer(rows[i], prompt_tokens) for i in range(len(rows))]
    fits = [i for i, (a, b) in enumerate(spans) if 0 < a <= prompt_tokens]
    self._index = np.array(fits, np.int64)
    self._spans = np.array([spans[i] for i in fits], np.int64).reshape(-1, 2)
    self.num_tokens = int((self._spans[:, 1] - self._spans[:, 0]).sum())

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, index: int) -> dict[str, Any]:
    row = dict(self._rows[int(self._index[index])])
    start, end = self._spans[index].tolist()
    places = np.arange(len(row["mask"])) + 1  # of the targets, in the text
    row["mask"] = row["mask"] * ((places >= start) & (places < end))
    return {
      **row,
      **_prompt(row, start, self._width),
      "example_id": np.int32(self._first_id + index),
    }


def _answer(row: Mapping[str, Any], prompt_tokens: int) -> tuple[int, int]:
  """Where the answer starts and ends, in places of the text.

  (0, 0) where there is none.
  """
  learnt = np.flatnonzero(row["mask"]) + 1  # target t is the text's t + 1
  if not len(learnt):
    return 0, 0
  end = int(learnt[-1]) + 1
  gaps = np.flatnonzero(np.diff(learnt) > 1)
  start = int(learnt[gaps[-1] + 1] if len(gaps) else learnt[0])
  if start == 1:  # learnt from its start: nobody said what the prompt is
    start = prompt_tokens
  return (start, end) if start < end else (0, 0)


def _prompt(
  row: Mapping[str, Any], length: int, width: int
) -> dict[str, np.ndarray]:
  prompt = np.zeros(width, np.int32)
  prompt[:length] = row["tokens"][:length]
  return {"prompt": prompt, "prompt_length": np.array(length, np.int32)}


def _check(data: Prompts) -> None:
  if data.prompt_tokens < 1:
    raise types.UserError(
      f"data.prompt_tokens is {data.prompt_tokens}; expected at least 1"
    )
  if getattr(data.of, "packing", "pad") != "pad":
    raise types.UserError(
      "data.of.packing is 'pack', which puts several documents in a row; a "
      "prompt needs a row of its own: take 'pad'"
    )
  if data.seq_len <= data.prompt_tokens:
    raise types.UserError(
      f"data.prompt_tokens is {data.prompt_tokens}, but the rows of data.of "
      f"have {data.seq_len} places; take a longer data.of.seq_len"
    )
