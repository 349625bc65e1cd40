# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers on disk, by what was asked, so that nothing is asked twice."""

import hashlib
import json
import pathlib
import sqlite3
import threading
from collections.abc import Mapping
from typing import Any

from jdistill import types


class Kept:
  """An SQLite file of answers; threads and processes may share it.

  An answer is there as a whole or not at all, whenever the process is killed.

  Args:
    path: of the file, made if it is not there.
  Raises: UserError for what is no such file.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._lock = threading.Lock()
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      self._base = sqlite3.connect(path, timeout=60, check_same_thread=False)
      with self._base:
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute(
          "CREATE TABLE IF NOT EXISTS answers"
          " (asked TEXT PRIMARY KEY, request TEXT, answer TEXT)"
        )
    except (sqlite3.Error, OSError) as error:
      raise types.UserError(
        f"{path}: cannot be used to keep answers: {error}"
      ) from error

  def find(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to a request; None where there is none."""
    with self._lock:
      found = self._base.execute(
        "SELECT answer FROM answers WHERE asked = ?", (digest(request),)
      ).fetchone()
    return None if found is None else json.loads(found[0])

  def keep(self, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Keeps an answer; it is on disk when this returns.

    Raises: UserError where the disk is full, and the like.
    """
    row = digest(request), json.dumps(request), json.dumps(answer)
    try:
      with self._lock, self._base:
        self._base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)",
                           row)  # fmt: skip
    except sqlite3.Error as error:
      raise types.UserError(f"{self._path}: {error}") from error

  def __len__(self) -> int:
    with self._lock:
      return self._base.execute("SELECT COUNT(*) FROM answers").fetchone()[0]

  def close(self) -> None:
    with self._lock:
      self._base.close()


def digest(request: Mapping[str, Any]) -> str:
  """What a request is found by: all that the answer depends on."""
  text = json.dumps(request, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()
