# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a teacher is served, and how it may be asked."""

import dataclasses
import os
import urllib.parse

from jdistill import types


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """An OpenAI-compatible server.

  Attributes:
    url: its base, such as `http://127.0.0.1:8000/v1`.
    model: what the server calls the model; servers of one need none.
    key_from: the environment variable that holds the key. The key itself is in
      no config, log or file, and goes to this server alone.
    concurrency: requests at a time.
    timeout: seconds until an answer is given up.
    attempts: of each request, where the server is away or too busy.
    first_wait: seconds before the second attempt; each further wait is twice as
      long, up to a minute, less a random part.
    requests_per_minute: requests begin no closer than this allows.
    tokens_per_minute: tokens read and written, as the server counts them.
    input_price: of a million tokens read.
    output_price: of a million tokens written.
  """

  url: str
  model: str = ""
  key_from: str | None = None
  concurrency: int = 8
  timeout: float = 300.0
  attempts: int = 10
  first_wait: float = 0.5
  requests_per_minute: float | None = None
  tokens_per_minute: float | None = None
  input_price: float = 0.0
  output_price: float = 0.0

  def __post_init__(self):
    try:
      parts = urllib.parse.urlsplit(self.url)
      known = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
      known, parts = False, urllib.parse.urlsplit("")
    if not known:
      raise types.UserError(
        f"endpoint: the url is {self.url!r}; expected such as "
        "http://127.0.0.1:8000/v1"
      )
    if parts.username or parts.password or parts.query:
      # Not repeated here: what is said goes to logs.
      raise types.UserError(
        f"endpoint: the url of {parts.hostname} has a user, password or query "
        "in it, which would be written down; put the key into an environment "
        "variable, and its name into key_from"
      )
    for name in ("concurrency", "timeout", "attempts", "requests_per_minute",
                 "tokens_per_minute"):  # fmt: skip
      value = getattr(self, name)
      if value is not None and not value > 0:
        raise types.UserError(
          f"endpoint: {name} is {value}; expected a positive number"
        )
    for name in ("first_wait", "input_price", "output_price"):
      if getattr(self, name) < 0:
        raise types.UserError(
          f"endpoint: {name} is {getattr(self, name)}; expected 0 or more"
        )

  @property
  def base(self) -> str:
    return self.url.rstrip("/")

  def key(self) -> str | None:
    """The key, from the environment.

    Raises: UserError if the variable is not set.
    """
    if self.key_from is None:
      return None
    key = os.environ.get(self.key_from, "").strip()
    if not key:
      raise types.UserError(
        f"endpoint: key_from is {self.key_from}, and the environment has no "
        "variable of that name, or an empty one"
      )
    return key
