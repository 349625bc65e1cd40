# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Documents as prompts, which a model continues, beside their own answers."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdistill import tokenizers, types
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
    privileged: another prompt for each row, for a teacher that sees more: a
      text with `{prompt}` and `{answer}`, the row's own, in it, such as
      "{prompt}{answer}{prompt}". None for no such thing.
    privileged_tokens: W, the longest of these; rows that need more are left
      out.
  """

  of: base.Data
  prompt_tokens: int = 64
  privileged: str | None = None
  privileged_tokens: int = 256

  @property
  def needs_tokenizer(self) -> bool:  # pyrefly: ignore[bad-override]
    return self.of.needs_tokenizer

  @property
  def seq_len(self) -> int:
    """Places of a row: those of `of`."""
    return int(getattr(self.of, "seq_len", 0))

  @property
  def num_domains(self) -> int | None:
    return self.of.num_domains

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
    shapes: dict[str, tuple[int, ...]] = {
      **self.of.further(),
      "prompt": (self.prompt_tokens,),
      "prompt_length": (),
    }
    if self.privileged is not None:
      shapes["privileged"] = (self.privileged_tokens,)
      shapes["privileged_length"] = ()
    return shapes

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
    more = None
    if self.privileged is not None:
      more = Template(self.privileged, self.privileged_tokens, tokenizer)
    sources, first_id = [], 0
    for rows in opened.sources:
      found = PromptRows(rows, self.prompt_tokens, first_id, more)
      if not len(found):
        raise types.UserError(
          f"{self.title}: none of {len(rows)} rows has a prompt of 1 to "
          f"{self.prompt_tokens} tokens and an answer behind it; raise "
          "prompt_tokens, or take longer documents"
        )
      first_id += len(found)
      sources.append(found)
    row = opened.facts.example
    blank = {
      name: np.zeros(shape, np.int32) for name, shape in self.further().items()
    }
    facts = loader.Facts(
      num_rows=first_id,
      num_tokens=sum(rows.num_tokens for rows in sources),
      efficiency=opened.facts.efficiency,
      example={**row, **blank},
      identity=files.combine(
        opened.facts.identity,
        self.prompt_tokens,
        self.privileged,
        self.privileged_tokens,
      ),
    )
    return base.Opened(sources, facts, opened.weights, opened.block)


class Template:
  """A prompt made of a row's prompt and answer."""

  def __init__(self, text: str, width: int, tokenizer: Any):
    self.width = width
    self._parts: list[str | np.ndarray] = []
    for part in re.split(r"(\{prompt\}|\{answer\})", text):
      if part in ("{prompt}", "{answer}"):
        self._parts.append(part)
      elif part:
        self._parts.append(_encoded(part, tokenizer))
    if "{prompt}" not in self._parts:
      raise types.UserError(
        f"data.privileged is {text!r}; expected a text with {{prompt}} in it"
      )

  def length(self, prompt: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """[N] how long it gets with prompts and answers of these lengths."""
    known = {"{prompt}": prompt, "{answer}": answer}
    total = np.zeros_like(prompt)
    for part in self._parts:
      total = total + (known[part] if isinstance(part, str) else len(part))
    return total

  def fill(self, prompt: np.ndarray, answer: np.ndarray) -> np.ndarray:
    known = {"{prompt}": prompt, "{answer}": answer}
    parts = [known[p] if isinstance(p, str) else p for p in self._parts]
    return np.concatenate(parts)


def _encoded(text: str, tokenizer: Any) -> np.ndarray:
  if tokenizer is None:
    raise types.UserError(
      f"data.privileged has the text {text!r}, but these data have no "
      "tokenizer; take {prompt} and {answer} alone"
    )
  [ids] = tokenizers.encode_documents(
    tokenizer, [text], add_bos=False, add_eos=False
  )
  return ids


class PromptRows:
  """The rows of one source that have a prompt and an answer."""

  def __init__(
    self,
    rows: mixture.Rows,
    prompt_tokens: int,
    first_id: int = 0,
    more: Template | None = None,
  ):
    self._rows = rows
    self._more = more
    self._width = prompt_tokens
    self._first_id = first_id
    start, end = _answers(rows).T
    # Learnt from its start: nobody said what the prompt is.
    start = np.where(start == 1, prompt_tokens, start)
    fits = (start > 0) & (start <= prompt_tokens) & (start < end)
    if more is not None:
      fits &= more.length(start, end - start) <= more.width
    self._index = np.flatnonzero(fits)
    self._spans = np.stack([start, end], axis=1)[self._index]
    self.num_tokens = int((self._spans[:, 1] - self._spans[:, 0]).sum())

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, index: int) -> dict[str, Any]:
    row = dict(self._rows[int(self._index[index])])
    start, end = self._spans[index].tolist()
    places = np.arange(len(row["mask"])) + 1  # of the targets, in the text
    row["mask"] = row["mask"] * ((places >= start) & (places < end))
    found = {**row, **_padded("prompt", row["tokens"][:start], self._width)}
    if self._more is not None:
      told = self._told(row, start, end)
      found |= _padded("privileged", told, self._more.width)
    return {**found, "example_id": np.int32(self._first_id + index)}

  def _told(self, row: Mapping[str, Any], start: int, end: int) -> np.ndarray:
    assert self._more is not None
    answer = row["targets"][start - 1 : end - 1]
    return self._more.fill(row["tokens"][:start], answer)


def _answers(rows: mixture.Rows) -> np.ndarray:
  """[N, 2] where the answer of each row starts and ends, in places of the text.

  It is what is learnt last; (0, 0) where nothing is.
  """
  known = getattr(rows, "answers", None)
  if known is not None:
    return known()
  spans = [_answer(rows[i]) for i in range(len(rows))]
  return np.array(spans, np.int64).reshape(-1, 2)


def _answer(row: Mapping[str, Any]) -> tuple[int, int]:
  learnt = np.flatnonzero(row["mask"]) + 1  # target t is the text's t + 1
  if not len(learnt):
    return 0, 0
  gaps = np.flatnonzero(np.diff(learnt) > 1)
  start = int(learnt[gaps[-1] + 1] if len(gaps) else learnt[0])
  return start, int(learnt[-1]) + 1


def _padded(name: str, ids: np.ndarray, width: int) -> dict[str, np.ndarray]:
  padded = np.zeros(width, np.int32)
  padded[: len(ids)] = ids
  return {name: padded, f"{name}_length": np.array(len(ids), np.int32)}


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
