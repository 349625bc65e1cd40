# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Many prompts from a file, and what a model makes of them."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import jax
import numpy as np

from jdistill import evaluate, sampling, types
from jdistill.data import files
from jdistill.models.base import Architecture


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One prompt: `given` is `{"prompt": text}` or `{"messages": turns}`."""

  where: str  # FILE:LINE
  given: Mapping[str, Any]

  def encode(self, tokenizer: Any, *, chat: bool) -> np.ndarray:
    """Its ids, int32 [n]; messages are a chat whatever `chat` says.

    Raises: UserError naming the line.
    """
    messages = self.given.get("messages")
    try:
      return evaluate.encode_prompt(
        tokenizer,
        self.given["prompt"] if messages is None else messages,
        chat=chat or messages is not None,
      )
    except types.UserError as error:
      raise types.UserError(f"{self.where}: {error}") from error


def read(path: pathlib.Path) -> list[Prompt]:
  """Prompts of a file: .txt has one a line, .jsonl an object a line.

  An object has `prompt`, a text, or `messages`, each with `role` and `content`;
  other fields are left alone. Empty lines are skipped.

  Raises: UserError for a file that cannot be read, naming the line at fault.
  """
  if path.suffix not in (".txt", ".jsonl"):
    raise types.UserError(
      f"{path}: prompts come from a .txt file, one a line, or a .jsonl file, an"
      ' object a line with "prompt" or "messages"'
    )
  text = files.decode(files.read_bytes(path), str(path))
  found = []
  for number, line in enumerate(text.split("\n"), 1):
    if not line.strip():
      continue
    where = f"{path}:{number}"
    given = {"prompt": line}
    if path.suffix == ".jsonl":
      given = _given(line, where)
    found.append(Prompt(where, given))
  if not found:
    raise types.UserError(f"{path}: found no prompts, expected at least one")
  return found


def _given(line: str, where: str) -> dict[str, Any]:
  try:
    row = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise types.UserError(f"{where}: not valid JSON: {error}") from error
  if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
    raise types.UserError(
      f'{where}: expected an object with either "prompt" or "messages", found'
      f" {line.strip()[:60]}"
    )
  if "prompt" in row:
    if not isinstance(row["prompt"], str):
      raise types.UserError(
        f'{where}: "prompt" is {row["prompt"]!r}, expected a text'
      )
    return {"prompt": row["prompt"]}
  turns = row["messages"]
  if not (isinstance(turns, list) and turns and all(map(_is_turn, turns))):
    raise types.UserError(
      f'{where}: "messages" must be a list of at least one object, each with'
      ' the texts "role" and "content"'
    )
  return {"messages": turns}


def _is_turn(turn: Any) -> bool:
  return isinstance(turn, dict) and all(
    isinstance(turn.get(name), str) for name in ("role", "content")
  )


def complete(
  architecture: Architecture,
  params: types.PyTree,
  tokenizer: Any,
  prompts: Sequence[np.ndarray],
  settings: sampling.Sampling,
  *,
  ends: Sequence[int],
  stop: Sequence[str] = (),
  batch_size: int = 16,
  seed: int = 0,
  row_ids: Sequence[int] | None = None,
) -> Iterator[sampling.Answer]:
  """Answers to prompts of any number, in their order, batch by batch.

  Args:
    architecture: the model's.
    params: its parameters.
    tokenizer: turns answers into text.
    prompts: ids of each.
    settings: how tokens are drawn; `seed` and a prompt's row id choose its
      noise, whatever the batch size.
    ends: tokens that end a text.
    stop: texts before which an answer is cut.
    batch_size: prompts that are continued at once.
    seed: of the draws.
    row_ids: of each prompt; by default its place.
  """
  if batch_size < 1:
    raise types.UserError(f"batch_size is {batch_size}; expected at least 1")
  if not prompts:
    return
  rows = range(len(prompts)) if row_ids is None else row_ids
  size = min(batch_size, len(prompts))
  for start in range(0, len(prompts), size):
    # The last batch is as large as the others, which compiles nothing again.
    places = [min(start + i, len(prompts) - 1) for i in range(size)]
    answers = sampling.answers(
      architecture,
      params,
      [prompts[place] for place in places],
      settings,
      key=jax.random.key(seed),
      ends=ends,
      row_ids=[rows[place] for place in places],
      stop=stop,
      tokenizer=tokenizer,
    )
    yield from answers[: len(prompts) - start]


def head(
  prompt: Prompt, sample: int, by: Mapping[str, Any], *, chat: bool
) -> dict[str, Any]:
  """What is known of a row before it is written: prompt and origin.

  A text that is put into the chat template is what the user says in a chat.
  """
  given = dict(prompt.given)
  if chat and "prompt" in given:
    given = {"messages": [{"role": "user", "content": given["prompt"]}]}
  return {**given, "sample": sample, "by": dict(by)}


def row(head: Mapping[str, Any], answer: sampling.Answer) -> dict[str, Any]:
  """What is written down: the prompt as given, the answer, and whose it is.

  `log_prob_sum` and `log_prob_mean` are nats of all its tokens, and of each,
  by the model's own distribution whatever they were drawn from.
  """
  log_probs = answer.log_probs.astype(np.float64)
  answered = {
    "text": answer.text,
    "tokens": len(answer.tokens),
    "finish": answer.finish,
    "log_prob_sum": float(log_probs.sum()),
    "log_prob_mean": float(log_probs.mean()) if log_probs.size else None,
  }
  given = {k: v for k, v in head.items() if k not in ("sample", "by")}
  return {**given, **answered, "sample": head["sample"], "by": head["by"]}


class Kept:
  """A file of rows that grows, and goes on where it was left.

  Until all rows are there it lies beside its place, as `NAME.part`.

  Args:
    path: where it is to be.
    heads: of all its rows, in order.
  Raises: UserError for a file with other rows.
  """

  def __init__(self, path: pathlib.Path, heads: Sequence[Mapping[str, Any]]):
    self._path, self._part = path, path.with_name(f"{path.name}.part")
    there = self._part if self._part.exists() else path
    whole, self._text = 0, b""
    with _errors(path):
      if there.exists():
        self._text = there.read_bytes()
    # What a process wrote last may have been cut short with it.
    self._text = self._text[: self._text.rfind(b"\n") + 1]
    for line in self._text.splitlines():
      self._check(line, heads, whole, there)
      whole += 1
    self.done, self._all = whole, len(heads)

  def _check(self, line, heads, number, there) -> None:
    try:
      found = json.loads(line)
    except ValueError:
      found = None
    expected = heads[number] if number < len(heads) else {"by": None}
    if not isinstance(found, dict):
      fault = "no JSON object"
    else:
      wrong = [k for k, v in expected.items() if found.get(k) != v]
      if not wrong:
        return
      fault = f"{wrong[0]} {found.get(wrong[0])!r}"
    raise types.UserError(
      f"{there}:{number + 1}: found {fault}, expected "
      f"{_short(expected)}: the file is of another job; choose another one, or "
      "the same model, prompts and settings to go on with it"
    )

  @contextlib.contextmanager
  def writing(self) -> Iterator[IO[str]]:
    """The file behind its last whole row; put in its place at the end."""
    with _errors(self._path):
      if self.done == self._all and not self._part.exists():
        with open(os.devnull, "w") as out:
          yield out
        return
      self._part.write_bytes(self._text)
      with self._part.open("a") as out:
        yield out
      self._part.replace(self._path)


@contextlib.contextmanager
def _errors(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise types.UserError(f"{path}: {error.strerror}") from error


def _short(head: Mapping[str, Any]) -> str:
  return f"{json.dumps(head)[:200]}" if head.get("by") else "no further row"
