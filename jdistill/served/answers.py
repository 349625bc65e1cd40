# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Texts that a served teacher writes."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jdistill import types
from jdistill.served.client import Client


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a server wrote.

  `tokens` is how many, as it counts them; None where it does not. `finish` is
  "end" for a text that is whole, "stop" where a stop text may have cut it,
  "length" where its length did, or what else the server says.
  """

  text: str
  tokens: int | None
  finish: str


def complete(
  client: Client,
  prompts: Sequence[Mapping[str, Any]],
  *,
  seeds: Sequence[int] | None = None,
  max_tokens: int = 128,
  temperature: float = 0.7,
  top_p: float | None = None,
  stop: Sequence[str] = (),
) -> Iterator[Answer]:
  """Answers to prompts, in their order, many asked at a time.

  Args:
    client: of the endpoint.
    prompts: each `{"prompt": text}`, which is continued, or `{"messages":
      turns}`, which the server puts into its chat template.
    seeds: of each answer, by default its place; part of the request, so that
      two answers to one prompt are two.
    max_tokens: of an answer.
    temperature: 0 for the likeliest tokens.
    top_p: draws among the likeliest tokens of this share.
    stop: texts before which an answer is cut.
  Raises: UserError as `Client.ask`, and for an answer without text.
  """
  shared: dict[str, Any] = {
    "max_tokens": max_tokens,
    "temperature": temperature,
  }
  if top_p is not None:
    shared["top_p"] = top_p
  if stop:
    shared["stop"] = list(stop)

  def requests():
    for place, given in enumerate(prompts):
      path = "/chat/completions" if "messages" in given else "/completions"
      seed = place if seeds is None else seeds[place]
      yield path, {**given, **shared, "seed": seed}

  for answer in client.ask_all(requests()):
    yield _answer(answer, client.endpoint.base, bool(stop))


def _answer(answer: Mapping[str, Any], url: str, stopped: bool) -> Answer:
  try:
    choice = answer["choices"][0]
    message = choice.get("message")
    text = choice["text"] if message is None else message["content"]
    reason = choice.get("finish_reason")
  except (KeyError, IndexError, TypeError, AttributeError):
    text, reason = None, None
  if not isinstance(text, str):
    raise types.UserError(f"{url}: its answer has no text: {str(answer)[:200]}")
  finish = {"stop": "stop" if stopped else "end"}.get(str(reason), str(reason))
  tokens = (answer.get("usage") or {}).get("completion_tokens")
  return Answer(text, tokens, finish)
