# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of data with what teachers said of them, as Grain reads them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdistill import types
from jdistill.cached import formats, store
from jdistill.data import mixture

PREFIX = "said"
"""Rows hold `said/TEACHER/NAME` for each array that a teacher said."""


@dataclasses.dataclass(frozen=True)
class Said:
  """A cache as the signal of one teacher.

  Attributes:
    cache: what is read.
    format: in which it is kept.
    rest: how ids that are not listed are understood; None: as is usual.
  """

  cache: store.Cache
  format: formats.Format
  rest: types.Rest | None = None

  def row(self, row: Mapping[str, Any]) -> formats.Arrays:
    """What was said of a row, [T, ...] with nothing where the mask is 0.

    Raises: UserError if the cache does not have it.
    """
    record = self.cache.read(store.row_key(row))
    if record is None:
      raise types.UserError(
        f"{self.cache.directory}: row {int(row['example_id'])} of the data is "
        "not in this cache, which was written for other rows (another text, "
        "tokenizer, seq_len or packing); `jdistill cache` adds what is missing"
      )
    counted = np.asarray(row["mask"]) != 0
    said = self.format.decode(
      record,
      int(counted.sum()),
      self.cache.manifest["vocab_size"],
      self.cache.width,
    )
    found = self.blank(counted.shape)
    for name, values in said.items():
      found[name][counted] = values
    return found

  def blank(self, shape: tuple[int, ...]) -> formats.Arrays:
    """The same of a row [*shape] of which nothing was said."""
    return self.format.blank(shape, self.cache.width)


class RowsSaid:
  """Rows of one source, with what each teacher said."""

  def __init__(self, rows: mixture.Rows, said: Mapping[str, Said]):
    self._rows = rows
    self._said = said

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict[str, Any]:
    row = self._rows[index]
    return {**row, **_flat({k: s.row(row) for k, s in self._said.items()})}


def beside(said: Mapping[str, Said]):
  """For `data.load(beside=...)`: adds what teachers said to opened data."""

  def add(opened):
    shape = np.shape(opened.facts.example["mask"])
    blank = _flat({name: one.blank(shape) for name, one in said.items()})
    example = {**opened.facts.example, **blank}
    return dataclasses.replace(
      opened,
      sources=[RowsSaid(rows, said) for rows in opened.sources],
      facts=dataclasses.replace(opened.facts, example=example),
    )

  return add if said else None


def _flat(said: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
  return {
    f"{PREFIX}/{teacher}/{name}": value
    for teacher, arrays in said.items()
    for name, value in arrays.items()
  }


def taken(
  arrays: dict[str, Any], said: Mapping[str, Said]
) -> dict[str, dict[str, Any]]:
  """Takes the signals out of a batch's arrays, as `Batch.said` has them."""
  found = {}
  for teacher, one in said.items():
    prefix = f"{PREFIX}/{teacher}/"
    own = {
      key.removeprefix(prefix): arrays.pop(key)
      for key in list(arrays)
      if key.startswith(prefix)
    }
    if own:
      found[teacher] = {"student": one.format.signal(own, one.rest)}
  return found
