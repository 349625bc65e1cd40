# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Data of several domains, each row of which says where it comes from."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from jdistill import types
from jdistill.data import base, files, loader, mixture


@dataclasses.dataclass(frozen=True)
class Domains(base.Data):
  """Rows of other data, and the number of the part that each is of.

  A row has what its part gives and beside it `domain`, which `methods.Routed`
  goes by. The parts' own `batch_size`, `shuffle` and `epochs` play no role.

  Attributes:
    parts: text, chats, prompts or beds by domain, with rows of one length.
    weights: each domain's share of the rows; by default all have the same.
      With `epochs` set every row counts once instead.
    batches: "mixed" has rows of all domains in each batch, "pure" those of one.
      Where a saved run goes on with pure batches, `batch_size` stays.
  """

  parts: dict[str, base.Data]
  weights: dict[str, float] = dataclasses.field(default_factory=dict)
  batches: Literal["mixed", "pure"] = "mixed"

  @property
  def _first(self) -> base.Data:
    return next(iter(self.parts.values()))

  @property
  def needs_tokenizer(self) -> bool:  # pyrefly: ignore[bad-override]
    return any(part.needs_tokenizer for part in self.parts.values())

  @property
  def num_domains(self) -> int:
    return len(self.parts)

  @property
  def packing(self) -> str:
    """`pack` if any part puts several documents in a row."""
    how = {getattr(part, "packing", "pad") for part in self.parts.values()}
    return "pack" if "pack" in how else "pad"

  @property
  def seq_len(self) -> int:
    """Places of a row."""
    return int(getattr(self._first, "seq_len", 0))

  @property
  def title(self) -> str:
    return ", ".join(f"{k}: {part.title}" for k, part in self.parts.items())

  @property
  def vocab_size(self) -> int | None:
    sizes = [part.vocab_size for part in self.parts.values()]
    return max((size for size in sizes if size is not None), default=None)

  @property
  def end_ids(self) -> tuple[int, ...]:
    return self._first.end_ids

  def further(self) -> dict[str, tuple[int, ...]]:
    return {**self._first.further(), "domain": ()}

  def pieces(self, tokens: np.ndarray) -> list[str]:
    return self._first.pieces(tokens)

  def open(
    self,
    tokenizer: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
  ) -> base.Opened:
    """Opens all parts; see `Data.open`."""
    _check(self)
    opened = {k: v.open(tokenizer, cache_dir) for k, v in self.parts.items()}
    _check_rows(opened)
    sources, weights, first_id = [], [], 0
    for number, (name, part) in enumerate(opened.items()):
      share = self.weights.get(name, 1.0) / sum(part.weights)
      for rows, weight in zip(part.sources, part.weights, strict=True):
        sources.append(DomainRows(rows, number, first_id))
        weights.append(share * weight)
      first_id += part.facts.num_rows
    facts = [part.facts for part in opened.values()]
    tokens = sum(fact.num_tokens for fact in facts)
    filled = sum(fact.efficiency * fact.num_rows for fact in facts)
    joined = loader.Facts(
      num_rows=first_id,
      num_tokens=tokens,
      efficiency=filled / first_id,
      example={**facts[0].example, "domain": np.int32(0)},
      identity=files.combine(*(fact.identity for fact in facts)),
    )
    block = self.batch_size if self.batches == "pure" else 1
    return base.Opened(sources, joined, tuple(weights), block)


class DomainRows:
  """The rows of one source, which say their domain."""

  def __init__(self, rows: mixture.Rows, number: int, first_id: int):
    self._rows = rows
    self._number = np.int32(number)
    self._first_id = first_id
    if hasattr(rows, "answers"):
      self.answers = rows.answers

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    row = self._rows[index]
    example_id = np.int32(self._first_id + row["example_id"])
    return {**row, "domain": self._number, "example_id": example_id}


def _check(data: Domains) -> None:
  if not data.parts:
    raise types.UserError("data.parts is empty; expected at least one domain")
  unknown = [name for name in data.weights if name not in data.parts]
  if unknown:
    raise types.UserError(
      f"data.weights.{unknown[0]}: there is no such domain; data.parts has "
      f"{', '.join(data.parts)}"
    )
  for name, weight in data.weights.items():
    if not 0 < weight < float("inf"):
      raise types.UserError(
        f"data.weights.{name} is {weight}; expected a positive number (leave "
        "the part out to draw nothing from it)"
      )
  if data.batches == "pure" and data.epochs is not None:
    raise types.UserError(
      "data.batches is 'pure', and with data.epochs set rows come in one order "
      "of all domains; take 'mixed', or no epochs"
    )


def _check_rows(opened: Mapping[str, base.Opened]) -> None:
  """Refuses parts whose rows do not make one batch."""
  shapes = {
    name: {k: np.shape(v) for k, v in part.facts.example.items()}
    for name, part in opened.items()
  }
  first, expected = next(iter(shapes.items()))
  for name, found in shapes.items():
    for key in dict.fromkeys((*expected, *found)):
      if found.get(key) != expected.get(key):
        raise types.UserError(
          f"data.parts.{name}: its rows have {key} of shape {found.get(key)}, "
          f"and those of {first} {expected.get(key)}; expected the same"
        )
