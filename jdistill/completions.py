# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Many prompts from a file, and what a model makes of them."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
  except ValueError as error:
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
) -> Iterator[sampling.Answer]:
  """Answers to prompts of any number, in their order, batch by batch.

  Args:
    architecture: the model's.
    params: its parameters.
    tokenizer: turns answers into text.
    prompts: ids of each.
    settings: how tokens are drawn; `seed` and a prompt's place choose its
      noise, whatever the batch size.
    ends: tokens that end a text.
    stop: texts before which an answer is cut.
    batch_size: prompts that are continued at once.
    seed: of the draws.
  """
  if batch_size < 1:
    raise types.UserError(f"batch_size is {batch_size}; expected at least 1")
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
      row_ids=places,
      stop=stop,
      tokenizer=tokenizer,
    )
    yield from answers[: len(prompts) - start]


def row(given: Mapping[str, Any], answer: sampling.Answer) -> dict[str, Any]:
  """What is written down: the prompt as given, and the answer.

  `log_prob_sum` and `log_prob_mean` are nats of all its tokens, and of each,
  by the model's own distribution whatever they were drawn from.
  """
  log_probs = answer.log_probs.astype(np.float64)
  return {
    **given,
    "text": answer.text,
    "tokens": len(answer.tokens),
    "finish": answer.finish,
    "log_prob_sum": float(log_probs.sum()),
    "log_prob_mean": float(log_probs.mean()) if log_probs.size else None,
  }
