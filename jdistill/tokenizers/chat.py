# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Chats to ids, with the tokens that the assistant has written marked.

A chat template is a program: what it writes for one turn may depend on the
others. So the assistant's turns are found by rendering: what the template
writes for the turns before one, with the prompt for an answer, must be the
beginning of what it writes for all; likewise with that turn included.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdistill.types import UserError

if TYPE_CHECKING:
  from transformers import PreTrainedTokenizerFast

_WAY_OUT = (
  "train on this chat with its earlier answers left out, one answer each, or"
  " give the tokenizer another chat_template"
)


def render_chat(
  tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
  """Renders a chat by the tokenizer's template.

  Args:
    tokenizer: from `load`, with a chat template.
    messages: turns, each with `role` and `content`; at least one assistant's.
  Returns: ids, int32 [n], and mask, uint8 [n], 1 for those the assistant wrote:
    its text and the token that ends the turn, not the template's white space
    after it. The mask is the ids' own; shift it with them to make targets.
  Raises:
    UserError: there is no template or no assistant's turn, the template fails,
      or what it writes for a turn changes with later ones.
  """
  _check_template(tokenizer)
  answers = _answers(messages)
  text = _render(tokenizer, messages, prompt=False)
  cuts = [0]
  for index in answers:
    start = _render(tokenizer, messages[:index], prompt=True)
    end = _render(tokenizer, messages[: index + 1], prompt=False)
    for piece, what in ((start, "the prompt for"), (end, "the turns up to")):
      if not text.startswith(piece):
        raise _not_a_prefix(text, piece, what, index)
    if not cuts[-1] <= len(start) < len(end):
      raise UserError(f"the chat template writes nothing for message {index}")
    cuts += [len(start), len(end)]
  pieces = _encode(tokenizer, text, cuts)
  special = set(tokenizer.all_special_ids)
  masks = []
  for number, ids in enumerate(pieces):
    learnt = 0
    if number % 2:
      learnt = _end_of_turn(tokenizer, ids, special)
    masks.append(np.arange(len(ids)) < learnt)
  return (
    np.concatenate([np.array(ids, np.int32) for ids in pieces]),
    np.concatenate(masks).astype(np.uint8),
  )


def render_prompt(
  tokenizer: "PreTrainedTokenizerFast", messages: Sequence[Mapping[str, Any]]
) -> str:
  """A chat's text up to where the assistant answers, special tokens included.

  Args:
    tokenizer: from `load`, with a chat template.
    messages: turns, each with `role` and `content`.
  Raises:
    UserError: there is no template, or it fails.
  """
  _check_template(tokenizer)
  return _render(tokenizer, messages, prompt=True)


def _check_template(tokenizer: "PreTrainedTokenizerFast") -> None:
  if not tokenizer.chat_template:
    raise UserError(
      f"tokenizer {tokenizer.name_or_path or '(unnamed)'} has no chat template;"
      " use the tokenizer of an instruction-tuned model"
    )


def _answers(messages: Sequence[Mapping[str, Any]]) -> list[int]:
  """The numbers of the assistant's turns."""
  for index, message in enumerate(messages):
    if not isinstance(message, Mapping) or "role" not in message:
      raise UserError(f"message {index} of a chat has no role: {message!r}")
  answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
  if not answers:
    roles = ", ".join(str(m["role"]) for m in messages) or "none"
    raise UserError(f"no assistant's turn to learn in a chat; roles: {roles}")
  return answers


def _render(
  tokenizer: "PreTrainedTokenizerFast",
  messages: Sequence[Mapping[str, Any]],
  *,
  prompt: bool,
) -> str:
  turns: Any = [dict(message) for message in messages]
  try:
    text = tokenizer.apply_chat_template(
      turns, tokenize=False, add_generation_prompt=prompt
    )
  # Templates raise what they like: a TemplateError, but also a TypeError.
  except Exception as error:
    raise UserError(
      f"the chat template fails on the first {len(turns)} messages of a chat:"
      f" {str(error) or type(error).__name__}"
    ) from None
  return str(text)


def _not_a_prefix(text: str, piece: str, what: str, index: int) -> UserError:
  pairs = zip(text, piece, strict=False)
  at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(text))
  return UserError(
    f"the chat template writes {what} message {index} otherwise when more turns"
    f" follow ({piece[at : at + 20]!r}, then {text[at : at + 20]!r}), so that"
    f" the tokens to learn cannot be told; {_WAY_OUT}"
  )


def _encode(
  tokenizer: "PreTrainedTokenizerFast", text: str, cuts: Sequence[int]
) -> list[list[int]]:
  """The ids of a text's pieces, cut at characters `cuts`, the first being 0."""

  def ids_of(part: str) -> list[int]:
    backend = tokenizer.backend_tokenizer
    try:
      return backend.encode(part, add_special_tokens=False).ids
    except UnicodeEncodeError:
      raise UserError("a chat's text is not valid Unicode") from None

  ids = ids_of(text)
  marks = [0]
  for cut in cuts[1:]:
    before = ids_of(text[:cut])
    if ids[: len(before)] != before:
      break
    marks.append(len(before))
  else:
    bounds = zip(marks, [*marks[1:], len(ids)], strict=True)
    return [ids[a:b] for a, b in bounds]
  # A token crosses from the prompt into the answer. The prompt comes first
  # when the model is used, and its tokens are then fixed: cut there.
  bounds = zip(cuts, [*cuts[1:], len(text)], strict=True)
  pieces = [ids_of(text[a:b]) for a, b in bounds]
  joined = [i for piece in pieces for i in piece]
  if tokenizer.decode(joined) != tokenizer.decode(ids):
    raise UserError(
      "a token crosses from the prompt into the assistant's turn and the"
      f" tokenizer does not allow a cut there; {_WAY_OUT}"
    )
  return pieces


def _end_of_turn(
  tokenizer: "PreTrainedTokenizerFast", ids: Sequence[int], special: set[int]
) -> int:
  """How many ids of a turn are the assistant's, up to the end-of-turn token."""
  last = max((i for i, t in enumerate(ids) if t in special), default=None)
  if last is None:
    return len(ids)
  after = str(tokenizer.decode(list(ids[last + 1 :])))
  return len(ids) if after.strip() else last + 1
