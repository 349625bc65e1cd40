# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Asks a server: many requests at a time, again where it fails, none twice."""

import collections
import concurrent.futures
import dataclasses
import email.utils
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx2

from jdistill import types
from jdistill.served.endpoint import Endpoint
from jdistill.served.kept import Kept

AGAIN = (408, 409, 425, 429)
"""Answers beside 500 and above after which a request is made again."""

LONGEST_WAIT = 60.0
"""Seconds, unless the server asks for more."""


@dataclasses.dataclass(frozen=True)
class Totals:
  """What has been asked, and what it cost; answers kept from before are free.

  `seconds` are those from the first request to the last answer.
  """

  requests: int = 0
  kept: int = 0
  retries: int = 0
  prompt_tokens: int = 0
  completion_tokens: int = 0
  cost: float = 0.0
  seconds: float = 0.0


class Client:
  """A client of one endpoint.

  Args:
    endpoint: the server.
    kept: answers from before, where new ones go too.
  Raises: UserError if the key is not in the environment.
  """

  def __init__(self, endpoint: Endpoint, kept: Kept | None = None):
    self.endpoint = endpoint
    self._kept = kept
    self._key = endpoint.key()
    headers = {}
    if self._key is not None:
      headers["Authorization"] = f"Bearer {self._key}"
    self._http = httpx2.Client(
      headers=headers,
      timeout=endpoint.timeout,
      limits=httpx2.Limits(max_connections=endpoint.concurrency),
    )
    self._lock = threading.Lock()
    self._stop = threading.Event()
    self._free_at = 0.0  # when the next request may begin
    self._begun: float | None = None
    self._totals = Totals()

  def __enter__(self) -> "Client":
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends waiting requests, closes connections and the kept answers."""
    self._stop.set()
    self._http.close()
    if self._kept is not None:
      self._kept.close()

  @property
  def totals(self) -> Totals:
    return self._totals

  def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The server's answer to one request, or the one kept from before.

    Args:
      path: behind the endpoint's url, `/completions`; one that begins with `//`
        is behind the host alone.
      body: JSON; the endpoint's model is added.
    Raises: UserError where the fault is the caller's (a wrong key, model or
      request), or the server has not answered after all attempts.
    """
    body = dict(body)
    if self.endpoint.model:
      body["model"] = self.endpoint.model
    request = {"url": self._url(path), "body": body}
    found = None if self._kept is None else self._kept.find(request)
    if found is not None:
      self._count(kept=1)
      return found
    found = self._asked(request["url"], body)
    if self._kept is not None:
      self._kept.keep(request, found)
    return found

  def ask_all(
    self, requests: Iterable[tuple[str, Mapping[str, Any]]]
  ) -> Iterator[dict[str, Any]]:
    """Answers to many requests, `concurrency` at a time, in their order."""
    size = self.endpoint.concurrency
    pool = concurrent.futures.ThreadPoolExecutor(size)
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
      for path, body in requests:
        waiting.append(pool.submit(self.ask, path, body))
        # Some ahead, so that a slow one does not stop the others.
        if len(waiting) >= 4 * size:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    except BaseException:
      if waiting:  # none where only the end of all answers was not asked for
        self._stop.set()
      for future in waiting:
        future.cancel()
      raise
    finally:
      pool.shutdown(wait=True, cancel_futures=True)

  def _url(self, path: str) -> str:
    if path.startswith("//"):
      return str(httpx2.URL(self.endpoint.base).join(path[1:]))
    return self.endpoint.base + path

  def _asked(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    begin, fault = time.monotonic(), ""
    for attempt in range(self.endpoint.attempts):
      if attempt:
        self._count(retries=1)
      self._wait_for_turn()
      asked = 0.0
      try:
        response = self._http.post(url, json=body)
      except httpx2.TransportError as error:
        fault = f"{type(error).__name__} {error}".strip()
      else:
        answer = _json(response)
        if response.status_code == 200 and answer and "error" not in answer:
          self._counted(answer)
          return answer
        fault = self._fault(response)
        if not _passes(response, answer):
          raise types.UserError(f"{url}: {fault}")
        asked = _retry_after(response)
      if attempt + 1 < self.endpoint.attempts:
        self._pause(max(asked, self._backoff(attempt)))
    took = time.monotonic() - begin
    raise types.UserError(
      f"{url}: no answer after {self.endpoint.attempts} attempts in "
      f"{took:.0f} s: {fault}; the answers so far are kept, and the same "
      "command goes on"
    )

  def _backoff(self, attempt: int) -> float:
    wait = min(self.endpoint.first_wait * 2**attempt, LONGEST_WAIT)
    return wait * random.uniform(0.5, 1.0)

  def _pause(self, seconds: float) -> None:
    if self._stop.wait(seconds):
      raise types.UserError(f"{self.endpoint.base}: stopped")

  def _wait_for_turn(self) -> None:
    """Waits until another request may begin."""
    per_minute = self.endpoint.requests_per_minute
    with self._lock:
      now = time.monotonic()
      if self._begun is None:
        self._begun = now
      begin = max(now, self._free_at)
      if per_minute is not None:
        self._free_at = begin + 60 / per_minute
    self._pause(begin - now)

  def _counted(self, answer: Mapping[str, Any]) -> None:
    usage = answer.get("usage") or {
      "prompt_tokens": answer.get("tokens_evaluated"),
      "completion_tokens": answer.get("tokens_predicted"),
    }
    read = int(usage.get("prompt_tokens") or 0)
    written = int(usage.get("completion_tokens") or 0)
    prices = self.endpoint.input_price, self.endpoint.output_price
    per_minute = self.endpoint.tokens_per_minute
    if per_minute is not None:
      with self._lock:
        free_at = max(time.monotonic(), self._free_at)
        self._free_at = free_at + 60 * (read + written) / per_minute
    self._count(
      requests=1,
      prompt_tokens=read,
      completion_tokens=written,
      cost=(read * prices[0] + written * prices[1]) / 1e6,
    )

  def _count(self, **more: int | float) -> None:
    with self._lock:
      old = self._totals
      new: dict[str, Any] = {k: getattr(old, k) + v for k, v in more.items()}
      if self._begun is not None:
        new["seconds"] = time.monotonic() - self._begun
      self._totals = dataclasses.replace(old, **new)

  def _fault(self, response: httpx2.Response) -> str:
    """What went wrong, in the server's words, without the key."""
    answer = _json(response) or {}
    said = answer.get("error") or answer.get("detail") or response.text
    if isinstance(said, Mapping):
      said = said.get("message") or said
    text = " ".join(str(said).split())[:300]
    if self._key is not None:
      text = text.replace(self._key, "***")
    fault = f"the server answered {response.status_code}: {text}"
    if _is_page(response) and response.status_code in (200, 404):
      fault += (
        "; a page of HTML, not JSON: is the url that of the server's API, such "
        "as http://HOST:8000/v1?"
      )
    if response.status_code in (401, 403):
      fault += (
        "; name the environment variable that holds the key: key_from"
        if self._key is None
        else f"; the key is that of {self.endpoint.key_from}"
      )
    return fault


def _json(response: httpx2.Response) -> dict[str, Any] | None:
  try:
    found = response.json()
  except ValueError:
    return None
  return found if isinstance(found, dict) else None


def _is_page(response: httpx2.Response) -> bool:
  return response.text.lstrip()[:9].lower() in ("<!doctype", "<html>")


def _passes(response: httpx2.Response, answer: dict[str, Any] | None) -> bool:
  """Whether a fault is one that passes."""
  code = response.status_code
  error = (answer or {}).get("error")
  if isinstance(error, Mapping) and error.get("code") == "insufficient_quota":
    return False
  if code == 200 and _is_page(response):
    return False
  return code in AGAIN or code >= 500 or code == 200


def _retry_after(response: httpx2.Response) -> float:
  """Seconds that the server asks to wait, 0 if it does not say."""
  said = response.headers.get("retry-after", "")
  try:
    return max(0.0, float(said))
  except ValueError:
    pass
  try:
    at = email.utils.parsedate_to_datetime(said)
  except ValueError:
    return 0.0
  return max(0.0, at.timestamp() - time.time())
