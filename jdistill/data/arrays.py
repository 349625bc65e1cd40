# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs with one label each, for classifiers: images, or any numbers."""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jdistill import refs, types
from jdistill.data import (
  base,
  corpus,
  files,
  loader,
  mixture,
  records,
  split,
  tables,
)


@dataclasses.dataclass(frozen=True)
class ArrayData(base.Data):
  """Arrays with labels, and how they become batches; see `Data` for the rest.

  Attributes:
    ref: a table of numbers (CSV or TSV, packed or not), an .npz of arrays, a
      Parquet file or a TFDS dataset.
    inputs: the field of the inputs; in a table without it, all columns but
      the label's.
    label: the field of the labels; in a table without a header, a column's
      number, from the end where it is negative.
    split: as for text, `[:90%]` or `train[:90%]`. It is of a fixed random
      order, as stored data are often sorted by class.
    shape: an input's shape, such as `28 28 1`; none leaves it as stored.
    scale: what inputs are multiplied by, such as 1/255.
  """

  ref: str
  inputs: str = "image"
  label: str = "label"
  split: str = ""
  shape: tuple[int, ...] = ()
  scale: float = 1.0
  batch_size: int = dataclasses.field(default=32, kw_only=True)

  @property
  def title(self) -> str:
    return f"{self.ref}{self.split}"

  def open(
    self,
    tokenizer: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
  ) -> base.Opened:
    """Opens the arrays; see `Data.open`.

    Rows are {inputs [...] float32, targets int32, mask float32, example_id}.
    """
    del tokenizer, cache_dir
    located = refs.locate_data(self.ref)
    wanted = split.parse(self.split)
    if wanted.name and located.kind != "tfds":
      raise types.UserError(
        f"{self.ref}: split {self.split!r} names {wanted.name!r}, but only "
        "tfds: has named splits"
      )
    found = _open(self, located, wanted.name or "train")
    fetch, count, where, identity, labels = found
    low, high = wanted.bounds(count)
    if low == high:
      raise types.UserError(
        f"{self.ref}: split {self.split!r} is empty: there are {count} rows"
      )
    index = np.arange(count)
    if (low, high) != (0, count):
      index = mixture.permutation(count, 0)[low:high]
    rows = ArrayRows(fetch, index, where, self.shape, self.scale)
    options = (self.split, self.shape, self.scale, self.inputs, self.label)
    return _opened(rows, files.combine(identity, options), labels)


class ArrayRows:
  """Rows whose inputs are fetched when asked for."""

  def __init__(
    self,
    fetch: Callable[[int], tuple[Any, Any]],
    index: np.ndarray,
    where: Callable[[int], str],
    shape: Sequence[int] = (),
    scale: float = 1.0,
  ):
    self._fetch = fetch
    self._index = index
    self._where = where
    self._shape = tuple(shape)
    self._scale = np.float32(scale)

  def __len__(self) -> int:
    return len(self._index)

  def __getitem__(self, index: int) -> dict[str, Any]:
    at = int(self._index[index])
    inputs, label = self._fetch(at)
    inputs = np.asarray(inputs, np.float32) * self._scale
    if self._shape:
      if inputs.size != np.prod(self._shape):
        raise types.UserError(
          f"{self._where(at)}: {inputs.size} values of shape {inputs.shape} "
          f"do not make the shape {self._shape} of data.shape"
        )
      inputs = inputs.reshape(self._shape)
    return {
      "inputs": inputs,
      "targets": _class(label, lambda: self._where(at)),
      "mask": np.float32(1),
      "example_id": np.int32(index),
    }


def from_arrays(
  inputs: np.ndarray,
  labels: np.ndarray,
  *,
  batch_size: int,
  seed: int = 0,
  shuffle: bool = True,
  epochs: int | None = None,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> loader.Loader:
  """The same batches from arrays that the caller has.

  Args:
    inputs: [N, ...].
    labels: [N] classes.
    batch_size: rows of the global batch.
    seed: chooses the order of the rows.
    shuffle: a new order in each pass.
    epochs: passes, or None for no end.
    process_index: this process among those that share the global batch.
    process_count: how many there are.
    num_threads: threads that prepare batches ahead; 0 for none.
  """
  inputs, labels = np.asarray(inputs), np.asarray(labels)
  _check_lengths(inputs, labels, "from_arrays")
  rows = ArrayRows(
    lambda i: (inputs[i], labels[i]),
    np.arange(len(labels)),
    lambda i: f"row {i} of the given arrays",
  )
  data = ArrayData(
    "the given arrays", batch_size=batch_size, shuffle=shuffle, epochs=epochs
  )
  identity = files.combine(inputs.shape, inputs.tobytes(), labels.tobytes())
  return data.draw(
    _opened(rows, identity, labels),
    seed=seed,
    process_index=process_index,
    process_count=process_count,
    num_threads=num_threads,
  )


def _opened(
  rows: ArrayRows, identity: str, labels: np.ndarray | None
) -> base.Opened:
  example = {name: np.zeros_like(value) for name, value in rows[0].items()}
  facts = loader.Facts(
    num_rows=len(rows),
    num_tokens=len(rows),
    efficiency=1.0,
    example=example,
    identity=identity,
    num_classes=_num_classes(labels),
  )
  return base.Opened([rows], facts)


def _num_classes(labels: np.ndarray | None) -> int | None:
  """One more than the largest label, unless some are no numbers."""
  try:
    return None if labels is None else int(labels.astype(float).max()) + 1
  except (ValueError, OverflowError):  # the row says so when it is drawn
    return None


def _open(data: ArrayData, located: refs.LocatedData, tfds_split: str):
  """(row -> (inputs, label), number of rows, row -> place, identity, labels).

  Labels are None where they are read row by row.
  """
  paths = located.paths
  if located.kind == "npz":
    inputs, labels = _npz(data, paths[0])
  elif located.kind == "csv":
    inputs, labels = _table(data, paths[0])
  else:
    held = corpus.open_records(
      located, tfds_split, fields=(data.inputs, data.label)
    )
    return (
      lambda i: _fields(data, held, i),
      len(held),
      held.where,
      held.identity,
      None,
    )
  _check_lengths(inputs, labels, str(paths[0]))
  return (
    lambda i: (inputs[i], labels[i]),
    len(labels),
    lambda i: f"{paths[0]}, row {i}",
    files.identity(paths),
    labels,
  )


def _fields(
  data: ArrayData, held: records.Records, index: int
) -> tuple[Any, Any]:
  record = held[index]
  for field in (data.inputs, data.label):
    if field not in record:
      raise types.UserError(
        f"{held.where(index)}: {corpus.missing_field(field, list(record))}"
      )
  return record[data.inputs], record[data.label]


def _npz(data: ArrayData, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  if not zipfile.is_zipfile(path):
    raise types.UserError(
      f"{path}: not an .npz: it is no zip archive, or was cut short"
    )
  try:
    with np.load(path, allow_pickle=False) as arrays:
      for field in (data.inputs, data.label):
        if field not in arrays:
          raise types.UserError(
            f"{path}: {corpus.missing_field(field, arrays.files)}"
          )
      return arrays[data.inputs], arrays[data.label]
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as e:
    raise types.UserError(f"{path}: not an .npz of plain arrays: {e}") from e


def _table(
  data: ArrayData, path: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
  """[N, columns] inputs and [N] labels of a table of numbers."""
  header = tables.has_header(path)
  table = tables.read_delimited(path, header=header)
  names = table.column_names
  if header and data.label in names:
    label = names.index(data.label)
  elif header:
    raise types.UserError(f"{path}: {corpus.missing_field(data.label, names)}")
  else:
    label = _column_number(data.label, len(names), path)
  if header and data.inputs in names:
    chosen = [names.index(data.inputs)]
  else:
    chosen = [i for i in range(len(names)) if i != label]
  try:
    columns = [np.asarray(table[i]).astype(np.float32) for i in chosen]
  except ValueError as e:
    raise types.UserError(f"{path}: not all inputs are numbers: {e}") from e
  return np.stack(columns, axis=1), np.asarray(table[label])


def _column_number(label: str, columns: int, path: pathlib.Path) -> int:
  number = int(label) if label.lstrip("-").isdigit() else columns
  if not -columns <= number < columns:
    raise types.UserError(
      f"{path}: has no header, so data.label must be the number of one of its "
      f"{columns} columns, such as -1 for the last; found {label!r}"
    )
  return number % columns


def _class(label: Any, where: Callable[[], str]) -> np.int32:
  """A label as a class number from 0."""
  try:
    value = float(np.asarray(label).item())
  except ValueError:
    value = np.nan
  if value < 0 or value != np.floor(value):
    raise types.UserError(
      f"{where()}: label {str(label)!r}: expected a whole number from 0"
    )
  return np.int32(value)


def _check_lengths(inputs: np.ndarray, labels: np.ndarray, name: str) -> None:
  if labels.ndim != 1 or len(inputs) != len(labels) or not len(labels):
    raise types.UserError(
      f"{name}: inputs of shape {inputs.shape} and labels of shape "
      f"{labels.shape}; expected as many labels as inputs, one or more"
    )
