# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A corpus: where its documents are, which are meant, and which field."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jdistill import refs, types
from jdistill.data import files, records, split, tables, wikitext

Format = Literal["text", "chat", "tokens", "completion"]

_FIELDS = {
  "text": "text",
  "chat": "messages",
  "tokens": "tokens",
  "completion": "text",
}
_BESIDE = ("prompt", "messages", "finish")
"""Further fields of a completion."""


class Completion(NamedTuple):
  """An answer and what it answers."""

  prompt: str | list[dict[str, str]]  # or the turns of a chat
  answer: str
  ended: bool | None  # whether it is whole; None where nobody says so


@dataclasses.dataclass(frozen=True)
class Source:
  """One corpus of documents.

  Attributes:
    ref: `tfds:NAME`, `jsonl:PATH`, `parquet:PATH`, `text:PATH`,
      `csv:PATH`, `pypi:package==version/path`, `stdlib:pydoc` or
      `hf:owner/name`.
    format: what a document is: running text, a chat (a list of messages with
      `role` and `content`, of which the assistant's are learnt), token ids, or
      a completion: an answer, which is learnt, beside the `prompt` or the
      `messages` that it follows, as `jdistill generate` writes it.
    field: the field that holds it; none stands for `text`, `messages` or
      `tokens`, and for the `text` of a completion.
    split: which documents, in stored order: `[:90%]`, `[90%:]`, `[100:200]`,
      for TFDS after the name of a split, `train[:90%]`.
    select: globs of documents' names, where they have names (files below a
      directory, topics, articles); `!` before a glob takes away. Applied
      before `split`.
    cut: for text files, what a document is.
    weight: this source's share of the rows, relative to the others'.
  """

  ref: str = "stdlib:pydoc"
  format: Format = "text"
  field: str = ""
  split: str = ""
  select: tuple[str, ...] = ()
  cut: records.Cutting = "file"
  weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Corpus:
  """The documents of a source, none read yet.

  Attributes:
    label: the source's name in messages.
    records: all records.
    index: [D] the numbers of those that are meant.
    field: the field that holds the document.
    format: what it is.
  """

  label: str
  records: records.Records
  index: np.ndarray
  field: str
  format: Format

  def __len__(self) -> int:
    return len(self.index)

  def __getitem__(self, number: int) -> Any:
    """The document's text, messages, tokens, or `Completion`.

    Raises:
      UserError: where its field is absent or of another type.
    """
    at = int(self.index[number])
    record = self.records[at]
    if self.field not in record:
      raise types.UserError(
        f"{self.where(number)}: {missing_field(self.field, list(record))}"
      )
    found = _checked(record[self.field], self.format, self, number)
    if self.format != "completion":
      return found
    return self._completion(record, str(found), number)

  def _completion(
    self, record: Mapping[str, Any], answer: str, number: int
  ) -> Completion:
    given = [name for name in ("messages", "prompt") if record.get(name)]
    if len(given) != 1:
      raise types.UserError(
        f"{self.where(number)}: a completion has either a prompt or messages, "
        f"found {' and '.join(given) or 'neither'}"
      )
    finish = record.get("finish")
    kind = "text" if given == ["prompt"] else "chat"
    return Completion(
      _checked(record[given[0]], kind, self, number),
      answer,
      None if finish is None else finish == "end",
    )

  def where(self, number: int) -> str:
    return self.records.where(int(self.index[number]))

  @property
  def identity(self) -> str:
    """Changes with the documents' content and their choice."""
    return files.combine(
      self.records.identity,
      files.combine(self.index.tolist()),
      self.field,
      self.format,
    )


def open_corpus(source: Source) -> Corpus:
  """Finds a source's documents.

  Raises:
    UserError: where the reference, the split or the selection is at fault.
  """
  located = refs.locate_data(source.ref)
  wanted = split.parse(source.split)
  if wanted.name and located.kind != "tfds":
    raise types.UserError(
      f"{source.ref}: split {source.split!r} names {wanted.name!r}, but only "
      f"tfds: has named splits; write {source.split[len(wanted.name) :]!r}"
    )
  field = source.field or _FIELDS[source.format]
  fields = (field, *(_BESIDE if source.format == "completion" else ()))
  found = open_records(
    located, wanted.name or "train", fields=fields, cut=source.cut
  )
  index = np.arange(len(found))
  if source.select:
    names = found.names()
    if names is None:
      raise types.UserError(
        f"{source.ref}: select needs documents with names, and these have "
        "none; use split"
      )
    index = np.array(split.select(names, source.select), np.int64)
    if not len(index):
      raise types.UserError(
        f"{source.ref}: select {source.select} matches none of "
        f"{len(names)} documents, such as {', '.join(map(repr, names[:3]))}"
      )
  low, high = wanted.bounds(len(index))
  if low == high:
    raise types.UserError(
      f"{source.ref}: split {source.split!r} is empty: there are "
      f"{len(index)} documents to split"
    )
  return Corpus(source.ref, found, index[low:high], field, source.format)


def open_records(
  located: refs.LocatedData,
  tfds_split: str,
  *,
  fields: tuple[str, ...] = (),
  cut: records.Cutting = "file",
) -> records.Records:
  """Opens what `refs.locate_data` has found, by its kind.

  Args:
    located: `kind`, `paths` and `name` of the data.
    tfds_split: the split's name, for TFDS.
    fields: the fields that will be asked for, where reading fewer is cheaper.
    cut: how text files are cut into documents.
  """
  paths = located.paths
  if located.kind == "tfds":
    return tables.TensorFlowDataset(located.name, tfds_split)
  if located.kind == "stdlib":
    return records.PydocTopics()
  if located.kind == "mediawiki" or any(".xml" in p.name for p in paths):
    return wikitext.MediaWiki(paths)
  if located.kind == "jsonl":
    return tables.JsonLines(paths)
  if located.kind == "parquet":
    return tables.Parquet(paths, fields)
  if located.kind == "csv":
    return tables.Delimited(paths)
  if located.kind == "text":
    return records.TextFiles(paths, cut)
  raise types.UserError(
    f"{located.ref}: {located.kind} files hold no documents; expected text, "
    "JSON lines, Parquet, CSV, TSV, .tab, a MediaWiki dump, or TFDS"
  )


def _checked(value: Any, kind: Format, corpus: Corpus, number: int) -> Any:
  fault = None
  if kind in ("text", "completion"):
    if isinstance(value, bytes):
      return files.decode(value, corpus.where(number))
    if isinstance(value, str):
      return value
    fault = "text"
  elif kind == "tokens":
    ids = np.asarray(value)
    if ids.ndim == 1 and (ids.dtype.kind in "iu" or not len(ids)):
      return ids
    fault = "a list of token ids"
  else:
    messages = _messages(value)
    if messages is not None:
      return messages
    fault = "a list of messages with the texts `role` and `content`"
  raise types.UserError(
    f"{corpus.where(number)}: field {corpus.field!r}: expected {fault}, found "
    f"{type(value).__name__} {str(value)[:60]!r}"
  )


def _messages(value: Any) -> list[dict[str, str]] | None:
  if isinstance(value, Mapping):
    # TFDS gives a sequence of dicts as a dict of sequences.
    columns = {key: list(column) for key, column in value.items()}
    value = [
      dict(zip(columns, row, strict=True))
      for row in zip(*columns.values(), strict=False)
    ]
  if not isinstance(value, list | tuple) or not value:
    return None
  messages = []
  for message in value:
    if not isinstance(message, Mapping):
      return None
    plain = {
      key: text.decode() if isinstance(text, bytes) else text
      for key, text in message.items()
    }
    if not all(isinstance(plain.get(k), str) for k in ("role", "content")):
      return None
    messages.append(plain)
  return messages


def missing_field(field: str, found: Sequence[str]) -> str:
  """Says that a field is not among those found, and what may be meant."""
  close = difflib.get_close_matches(field, found, n=1)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  return f"no field {field!r}; found {', '.join(found)}{hint}"
