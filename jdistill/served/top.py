# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The likeliest next tokens of given texts, where a server tells them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jdistill import types
from jdistill.served.client import Client

Dialect = Literal["vllm", "llama.cpp"]
"""vLLM says it of a whole text at once (`prompt_logprobs`). llama.cpp's server
says it of what it writes itself (`n_probs`), so it is asked for one token after
each beginning of the text, which it has read already."""


def top_log_probs(
  client: Client,
  texts: Sequence[np.ndarray],
  k: int,
  *,
  dialect: Dialect = "vllm",
  counted: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """The `k` likeliest tokens at each place of texts that are given.

  Args:
    client: of the endpoint.
    texts: ids [T + 1] of each, of the server's own tokenizer.
    k: how many.
    dialect: how the server is asked.
    counted: [T] bool for each text, the places that are wanted; default all.
  Returns: for each text ids [N, k] int32 and log-probabilities [N, k] float32
    at temperature 1, largest first, of what follows `text[: t + 1]`; -inf where
    the server said fewer. N counts the wanted places.
  Raises: UserError as `Client.ask`, and where the server does not tell.
  """
  wanted = [
    np.ones(len(text) - 1, bool) if counted is None else counted[i].astype(bool)
    for i, text in enumerate(texts)
  ]
  if dialect == "vllm":
    answers = client.ask_all(_whole(text, k) for text in texts)
    for answer, text, places in zip(answers, texts, wanted, strict=True):
      said = _prompt_logprobs(answer, client.endpoint.base, len(text))
      rows = [said[t + 1] for t in np.flatnonzero(places)]
      yield _arrays(rows, k)
    return
  answers = client.ask_all(
    _beginning(text, int(t), k)
    for text, places in zip(texts, wanted, strict=True)
    for t in np.flatnonzero(places)
  )
  for places in wanted:
    rows = [
      _n_probs(next(answers), client.endpoint.base)
      for _ in range(int(places.sum()))
    ]
    yield _arrays(rows, k)


Pairs = list[tuple[int, float]]


def _whole(text: np.ndarray, k: int) -> tuple[str, dict[str, Any]]:
  return "/completions", {
    "prompt": text.tolist(),
    "max_tokens": 1,
    "temperature": 0,
    "prompt_logprobs": k,
  }


def _beginning(text: np.ndarray, t: int, k: int) -> tuple[str, dict[str, Any]]:
  return "//completion", {
    "prompt": text[: t + 1].tolist(),
    "n_predict": 1,
    "temperature": 0,
    "n_probs": k,
    "cache_prompt": True,
  }


def _prompt_logprobs(
  answer: Mapping[str, Any], url: str, length: int
) -> list[Pairs]:
  """Of each token of a text, what could have been in its place."""
  try:
    said = answer["choices"][0]["prompt_logprobs"]
    found = [
      [(int(token), float(one["logprob"])) for token, one in place.items()]
      for place in (place or {} for place in said)
    ]
  except (KeyError, IndexError, TypeError, ValueError, AttributeError):
    found = []
  if len(found) != length:
    raise types.UserError(
      f"{url}: says nothing, or not of each token, in prompt_logprobs, as vLLM "
      "does; is it another server? The dialect of llama.cpp's is 'llama.cpp'"
    )
  return found


def _n_probs(answer: Mapping[str, Any], url: str) -> Pairs:
  try:
    said = answer["completion_probabilities"][0]["top_logprobs"]
    return [(int(one["id"]), float(one["logprob"])) for one in said]
  except (KeyError, IndexError, TypeError, ValueError) as error:
    raise types.UserError(
      f"{url}: says nothing in completion_probabilities, as llama.cpp's server "
      "does; is it another one? The dialect of vLLM is 'vllm'"
    ) from error


def _arrays(rows: Sequence[Pairs], k: int) -> tuple[np.ndarray, np.ndarray]:
  ids = np.zeros((len(rows), k), np.int32)
  log_probs = np.full((len(rows), k), -np.inf, np.float32)
  for row, pairs in enumerate(rows):
    # vLLM adds the token that came, where it is not among them.
    best = sorted(pairs, key=lambda pair: -pair[1])[:k]
    for place, (token, log_prob) in enumerate(best):
      ids[row, place], log_probs[row, place] = token, log_prob
  return ids, log_probs
