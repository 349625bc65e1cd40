# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Has a served teacher say once what a run will be told of it.

The cache is that of `cache_job`: the config's teacher says which model, and so
which tokenizer, and the server what it says. No weights are read.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdistill import cache_job, cached, distributed, served, types
from jdistill import config as config_lib
from jdistill.cached import store

LEAST_REST = 1e-7
"""Of the mass that is not listed, which rounding may take away."""

Row = Mapping[str, Any]


def cache(
  config: config_lib.Config,
  directory: pathlib.Path,
  format: cached.Format,
  client: served.Client,
  *,
  teacher: str = "teacher",
  dialect: served.Dialect = "vllm",
  part_rows: int = cache_job.PART_ROWS,
  max_rows: int | None = None,
) -> dict[str, Any]:
  """Writes a cache, or goes on with the one in a directory; in one process.

  Args:
    config: the run whose teacher and data are meant, evaluations too.
    directory: of the cache.
    format: the `cached.TopK` that is kept.
    client: of the server; with answers kept, nothing is asked twice.
    teacher: which one, by its name in the config.
    dialect: how the server is asked.
    part_rows: rows of a part.
    max_rows: of each of the data; None takes all.
  Returns: as `cache_job.cache`.
  Raises: UserError for another format, as `cache_job.cache`, and as
    `served.top_log_probs`.
  """
  if not isinstance(format, cached.TopK):
    raise types.UserError(
      "--format: a server tells the likeliest ids and no more; take top_k:K"
    )
  if dialect not in ("vllm", "llama.cpp"):
    raise types.UserError(
      f"--dialect is {dialect!r}; expected vllm or llama.cpp"
    )
  job = cache_job.Job.prepare(config, directory, format, teacher, None)
  where = {"served": client.endpoint.base, "model": client.endpoint.model}
  manifest = job.manifest(where)
  cache_job.begin_cache(directory, manifest)
  for texts in job.texts:
    count = len(texts.rows)
    if max_rows is not None:
      count = min(count, max_rows)
    missing, number = cache_job.missing_rows(job, texts, count)
    distributed.log(f"{texts.name}: {count} rows, {len(missing)} to be cached")
    writer = store.Writer(directory, range(number, 10**8), part_rows)
    try:
      for start in range(0, len(missing), part_rows):
        rows = [texts.rows[i] for i in missing[start : start + part_rows]]
        _say(job, writer, client, format.k, dialect, rows)
    finally:
      writer.flush()
  cache_job.finish_cache(directory, manifest, job.texts)
  return store.Cache(directory).summary()


def _say(
  job: cache_job.Job,
  writer: store.Writer,
  client: served.Client,
  k: int,
  dialect: served.Dialect,
  rows: list[Row],
) -> None:
  """Caches some rows."""
  documents = [documents_of(row) for row in rows]
  flat = [one for many in documents for one in many]
  answers = served.top_log_probs(
    client,
    [text for text, _ in flat],
    k,
    dialect=dialect,
    counted=[counted for _, counted in flat],
  )
  vocab_size = job.found.architecture.vocab_size
  for row, many in zip(rows, documents, strict=True):
    said = [next(answers) for _ in many]
    kept = _kept(said, k)
    _check_ids(kept["ids"], vocab_size, client)
    writer.add(
      store.row_key(row),
      job.format.encode(kept, vocab_size),
      tokens=int((np.asarray(row["mask"]) != 0).sum()),
      width=job.format.width(kept),
      figures=job.format.figures(kept),
    )


def documents_of(row: Row) -> list[tuple[np.ndarray, np.ndarray]]:
  """The texts of a row, [T + 1] ids each, and their places that count, [T].

  A row may hold several documents, of which none sees another.
  """
  if "tokens" not in row:
    raise types.UserError(
      "data: a server reads text, and these rows have a label each"
    )
  found = []
  for number in range(1, int(row["segment_ids"].max(initial=0)) + 1):
    places = np.flatnonzero(row["segment_ids"] == number)
    counted = np.asarray(row["mask"])[places] != 0
    if not counted.any():
      continue
    end = int(np.flatnonzero(counted)[-1]) + 1
    places, counted = places[:end], counted[:end]
    last = row["targets"][places[-1:]]
    found.append((np.append(row["tokens"][places], last), counted))
  return found


def _kept(
  said: list[tuple[np.ndarray, np.ndarray]], k: int
) -> dict[str, np.ndarray]:
  ids = np.concatenate([np.zeros((0, k), np.int32), *(i for i, _ in said)])
  logs = np.concatenate([np.zeros((0, k), np.float32), *(p for _, p in said)])
  mass = np.exp(logs.astype(np.float64)).sum(-1)
  rest = np.log(np.maximum(1 - mass, LEAST_REST)).astype(np.float32)
  return {"ids": ids, "log_probs": logs, "log_rest": rest}


def _check_ids(ids: np.ndarray, vocab_size: int, client: served.Client) -> None:
  if (largest := int(ids.max(initial=0))) >= vocab_size:
    raise types.UserError(
      f"{client.endpoint.base}: names the id {largest}, and the config's "
      f"teacher has {vocab_size}; another model is served there"
    )
