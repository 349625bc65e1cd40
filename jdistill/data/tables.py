# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Corpora with named fields: JSON lines, Parquet, delimited text, TFDS."""

import bisect
import functools
import itertools
import json
import mmap
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from jdistill import types
from jdistill.data import files, records


class JsonLines(records.Records):
  """One JSON object per line; blank lines are passed over.

  Plain files are mapped into memory and read where asked; packed ones (.gz,
  .bz2, .xz) are held unpacked.
  """

  def __init__(self, paths: Sequence[pathlib.Path]):
    self._paths = list(paths)
    self._data = [_bytes_of(path) for path in self._paths]
    self._lines = [_lines(data) for data in self._data]
    self._ends = list(itertools.accumulate(len(x) for x in self._lines))

  @functools.cached_property
  def identity(self) -> str:
    return files.identity(self._paths)

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    file, row = _place(self._ends, index)
    low, high, _ = self._lines[file][row]
    line = files.decode(bytes(self._data[file][low:high]), self.where(index))
    try:
      record = json.loads(line)
    except json.JSONDecodeError as e:
      raise types.UserError(
        f"{self.where(index)}: not JSON: {e.msg} at column {e.colno}, "
        f"in {line[:60]!r}"
      ) from e
    except RecursionError as e:
      raise types.UserError(
        f"{self.where(index)}: nests too deep: {line[:60]!r}"
      ) from e
    if not isinstance(record, dict):
      raise types.UserError(
        f"{self.where(index)}: expected a JSON object with named fields, "
        f"found {line[:60]!r}"
      )
    return record

  def where(self, index: int) -> str:
    file, row = _place(self._ends, index)
    return f"{self._paths[file]}, line {self._lines[file][row][2]}"


class Parquet(records.Records):
  """Parquet files, read one row group at a time."""

  def __init__(self, paths: Sequence[pathlib.Path], fields: Sequence[str] = ()):
    import pyarrow as pa
    import pyarrow.parquet as pq

    self._paths = list(paths)
    self._files, groups = [], []
    for number, path in enumerate(self._paths):
      try:
        file = pq.ParquetFile(path)
      except (pa.ArrowException, OSError) as e:
        raise types.UserError(f"{path}: not a Parquet file: {e}") from e
      self._files.append(file)
      groups += [
        (number, g, file.metadata.row_group(g).num_rows)
        for g in range(file.metadata.num_row_groups)
      ]
    self._groups = groups
    self._ends = list(itertools.accumulate(rows for _, _, rows in groups))
    self._fields = tuple(fields)
    self._group = functools.lru_cache(maxsize=1)(self._read_group)

  @functools.cached_property
  def identity(self) -> str:
    return files.identity(self._paths)

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    group, row = _place(self._ends, index)
    return {
      name: column[row].as_py() for name, column in self._group(group).items()
    }

  def where(self, index: int) -> str:
    group, row = _place(self._ends, index)
    file = self._groups[group][0]
    before = sum(n for f, _, n in self._groups[:group] if f == file)
    return f"{self._paths[file]}, row {before + row}"

  def _read_group(self, group: int) -> dict[str, Any]:
    number, index, _ = self._groups[group]
    file = self._files[number]
    # Asked-for fields that are absent are left to the caller's message, which
    # names the present ones: so then all are read.
    present = set(file.schema_arrow.names)
    known = [f for f in self._fields if f in present]
    whole = len(known) < len(self._fields) or not known
    table = file.read_row_group(index, columns=None if whole else known)
    return {name: table[name] for name in table.column_names}


class Delimited(records.Records):
  """CSV, TSV and Orange's .tab (two more header rows), packed or not."""

  def __init__(self, paths: Sequence[pathlib.Path]):
    self._paths = list(paths)
    tables = [read_delimited(path) for path in self._paths]
    self._tables = [
      {name: table[name].to_pylist() for name in table.column_names}
      for table in tables
    ]
    self._ends = list(itertools.accumulate(t.num_rows for t in tables))

  @functools.cached_property
  def identity(self) -> str:
    return files.identity(self._paths)

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    file, row = _place(self._ends, index)
    return {name: values[row] for name, values in self._tables[file].items()}

  def where(self, index: int) -> str:
    file, row = _place(self._ends, index)
    return f"{self._paths[file]}, row {row} after the header"


class TensorFlowDataset(records.Records):
  """A TFDS dataset in ArrayRecord files, read without TensorFlow.

  It is looked for where TFDS keeps its datasets, or in `TFDS_DATA_DIR`.

  Args:
    name: `name[/config][:version]`, as TFDS spells it.
    split: the name of a split.
  """

  def __init__(self, name: str, split: str):
    import tensorflow_datasets as tfds

    label = name
    try:
      builder = tfds.builder(
        name,
        data_dir=os.environ.get("TFDS_DATA_DIR"),
        file_format="array_record",
      )
    except (tfds.core.registered.DatasetNotFoundError, FileNotFoundError) as e:
      raise types.UserError(
        f"tfds:{label}: no such dataset: {str(e).splitlines()[0]}"
      ) from e
    splits = builder.info.splits
    if not splits:
      raise types.UserError(
        f"tfds:{label}: not prepared in {builder.data_dir}; prepare it with "
        "file_format='array_record', or set TFDS_DATA_DIR to where it is"
      )
    if split not in splits:
      raise types.UserError(
        f"tfds:{label}: no split {split!r}; it has {', '.join(sorted(splits))}"
      )
    stored = builder.info.file_format
    if stored is None or stored.value != "array_record":
      raise types.UserError(
        f"tfds:{label}: stored as {stored and stored.value}, which needs "
        "TensorFlow; prepare it with file_format='array_record'"
      )
    self._label = f"tfds:{label}, split {split}"
    rows = builder.as_data_source(split=split)
    self._rows = cast(Sequence[Any], rows)
    info = splits[split]
    paths = [pathlib.Path(p) for p in info.filepaths]
    local = [p for p in paths if p.exists()]
    self._identity = files.combine(
      builder.info.full_name,
      split,
      info.num_examples,
      info.num_bytes,
      files.identity(local),
    )

  @property
  def identity(self) -> str:
    return self._identity

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    row = self._rows[index]
    if not isinstance(row, Mapping):
      return {"text": row}
    return row

  def where(self, index: int) -> str:
    return f"{self._label}, row {index}"


def read_delimited(path: pathlib.Path, *, header: bool = True) -> Any:
  """Reads CSV, TSV or .tab into a pyarrow table.

  Args:
    path: the file; its suffixes say which.
    header: whether the first row names the columns; then all values are text.
      Without, columns are called f0, f1, ... and their types are guessed.

  Raises:
    UserError: where the rows do not have one shape.
  """
  import pyarrow as pa
  from pyarrow import csv

  data = files.read_bytes(path)
  files.decode(data, str(path))
  parse = csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True)
  read = csv.ReadOptions(
    autogenerate_column_names=not header,
    skip_rows_after_names=2 if _is_orange(path) else 0,
    # A record may not be longer than a block.
    block_size=max(1 << 20, len(data)),
  )
  convert = csv.ConvertOptions()
  try:
    if header:
      names = csv.open_csv(
        pa.BufferReader(data), read_options=read, parse_options=parse
      ).schema.names
      convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=False,
      )
    return csv.read_csv(
      pa.BufferReader(data),
      read_options=read,
      parse_options=parse,
      convert_options=convert,
    )
  except pa.ArrowException as e:
    raise types.UserError(f"{path}: {e}") from e


def has_header(path: pathlib.Path) -> bool:
  """Whether the first row of a table of numbers names its columns."""
  if _is_orange(path):
    return True
  first = files.read_bytes(path).partition(b"\n")[0].strip()
  return not all(map(_is_number, first.split(_delimiter(path).encode())))


def _is_number(cell: bytes) -> bool:
  try:
    float(cell)
  except ValueError:
    return False
  return True


def _is_orange(path: pathlib.Path) -> bool:
  return ".tab" in map(str.lower, path.suffixes)


def _delimiter(path: pathlib.Path) -> str:
  tabs = _is_orange(path) or ".tsv" in map(str.lower, path.suffixes)
  return "\t" if tabs else ","


def _bytes_of(path: pathlib.Path) -> bytes | mmap.mmap:
  if path.suffix.lower() in (".gz", ".bz2", ".xz"):
    return files.read_bytes(path)
  with files.open_bytes(path) as f:
    f.seek(0, 2)
    if not f.tell():
      return b""
    return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)


def _lines(data: bytes | mmap.mmap) -> np.ndarray:
  """[N, 3] start, end and number (from 1) of each line that is not blank."""
  if not data:
    return np.zeros((0, 3), np.int64)
  codes = np.frombuffer(data, np.uint8)
  ends = np.flatnonzero(codes == ord("\n"))
  if not len(ends) or ends[-1] != len(codes) - 1:
    ends = np.append(ends, len(codes))
  starts = np.concatenate([[0], ends[:-1] + 1])
  filled = [
    bool(data[low:high].strip()) if high - low < 80 else True
    for low, high in zip(starts.tolist(), ends.tolist(), strict=True)
  ]
  table = np.stack([starts, ends, np.arange(1, len(ends) + 1)], axis=1)
  return table[np.array(filled, bool)]


def _place(ends: Sequence[int], index: int) -> tuple[int, int]:
  """The part that holds an index, and the index within that part."""
  part = bisect.bisect_right(ends, index)
  return part, index - (ends[part - 1] if part else 0)
