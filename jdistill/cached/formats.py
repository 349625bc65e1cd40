# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What is kept of a teacher's outputs, and how it becomes bytes and back.

Positions that count, whose mask is not 0, are kept one after another; others
take no room.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, Int

from jdistill import losses, types

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Format(abc.ABC):
  """One way to keep what a teacher said; a record is one row's."""

  name: ClassVar[str]
  usual: ClassVar[types.Rest | None] = None
  """How ids that are not listed are understood unless a config says it."""

  @abc.abstractmethod
  def say(
    self, outputs: types.Outputs, seeds: Int[Array, " B"]
  ) -> dict[str, jax.Array]:
    """What is kept of each position [B, ...], traced.

    Args:
      outputs: of the teacher, on one view.
      seeds: of each row's draws, where there are any.
    """

  @abc.abstractmethod
  def encode(self, said: Mapping[str, np.ndarray], vocab_size: int) -> bytes:
    """The record of one row, from what `say` gave at its N counted positions,
    [N, ...]."""

  @abc.abstractmethod
  def decode(
    self, record: bytes, count: int, vocab_size: int, width: int
  ) -> Arrays:
    """Arrays [N, ...] of `types.Sparse` or `types.Outputs` by their names.

    Args:
      record: of `encode`.
      count: N.
      vocab_size: of the teacher.
      width: places per position, of `width`.
    """

  @abc.abstractmethod
  def width(self, said: Mapping[str, np.ndarray]) -> int:
    """Places that the positions of a row need: ids, or hidden states."""

  def figures(self, said: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Sums over a row's positions, for people; see `Cache.figures`."""
    del said
    return {}

  @abc.abstractmethod
  def blank(self, shape: tuple[int, ...], width: int) -> Arrays:
    """Arrays of a row, [*shape, ...], where nothing was said."""

  @abc.abstractmethod
  def signal(self, arrays: Mapping[str, Any], rest: types.Rest | None) -> Any:
    """The `types.Sparse` or `types.Outputs` of arrays, as `Batch.said` has."""

  @abc.abstractmethod
  def check_rest(self, rest: types.Rest | None, where: str) -> None:
    """Refuses what a config says of ids that are not listed."""


@dataclasses.dataclass(frozen=True)
class TopK(Format):
  """The `k` most probable ids, and the mass of all others.

  Log-probabilities are in float16: relative errors of probabilities are below
  0.1 % where they are above 0.14, and 0.8 % at the worst.
  """

  k: int = 32
  name: ClassVar[str] = "top_k"
  usual: ClassVar[types.Rest | None] = "bucket"

  def __post_init__(self):
    if self.k < 1:
      raise types.UserError(f"top_k keeps {self.k} ids; expected at least 1")

  def say(self, outputs, seeds):
    del seeds

    def of(logits, data, params):
      del data, params
      logits = logits["teacher"]
      log_probs = jax.nn.log_softmax(logits)
      top, ids = jax.lax.top_k(log_probs, min(self.k, logits.shape[-1]))
      rows = jnp.arange(len(ids))[:, None]
      others = log_probs.at[rows, ids].set(-jnp.inf)
      rest = jax.nn.logsumexp(others, axis=-1)
      return {"ids": ids, "log_probs": top, "log_rest": rest}

    streams = {"teacher": outputs.dense}
    return losses.walk_tokens(of, streams, {}, frozen=("teacher",))

  def encode(self, said, vocab_size):
    return b"".join(
      (
        _ids_to_bytes(said["ids"], vocab_size),
        said["log_probs"].astype("<f2").tobytes(),
        said["log_rest"].astype("<f2").tobytes(),
      )
    )

  def decode(self, record, count, vocab_size, width):
    ids, record = _ids_from_bytes(record, count * width, vocab_size)
    logs = np.frombuffer(record, "<f2").astype(np.float32)
    return {
      "ids": ids.reshape(count, width),
      "log_probs": logs[: count * width].reshape(count, width),
      "log_rest": logs[count * width :],
    }

  def width(self, said):
    return said["ids"].shape[-1]

  def figures(self, said):
    return {"mass": float(np.exp(said["log_probs"]).sum())}

  def blank(self, shape, width):
    return {
      "ids": np.zeros((*shape, width), np.int32),
      "log_probs": np.zeros((*shape, width), np.float32),
      "log_rest": np.zeros(shape, np.float32),
    }

  def signal(self, arrays, rest):
    return types.Sparse(**arrays, rest=rest or "bucket")

  def check_rest(self, rest, where):
    if rest == "drawn":
      raise types.UserError(
        f"{where} is 'drawn', and these ids are the most probable ones, which "
        "nobody drew; take 'bucket', or a cache of --format sampled"
      )


@dataclasses.dataclass(frozen=True)
class Sampled(Format):
  """`draws` ids drawn from the teacher with replacement, as ids and counts.

  Their shares are unbiased estimates of the probabilities, of all ids
  (Anshumann et al., 2025, arXiv:2503.16870).
  """

  draws: int = 50
  name: ClassVar[str] = "sampled"
  usual: ClassVar[types.Rest | None] = "drawn"

  def __post_init__(self):
    if not 1 <= self.draws <= 255:
      raise types.UserError(
        f"sampled takes {self.draws} draws; expected 1 to 255"
      )

  def say(self, outputs, seeds):
    lead = outputs.hidden.shape[1:-1]
    keys = jax.vmap(jax.random.key)(seeds)
    uniform = jax.vmap(lambda k: jax.random.uniform(k, (*lead, self.draws)))
    at = uniform(keys)

    def of(logits, at, params):
      del params
      mass = jnp.cumsum(jax.nn.softmax(logits["teacher"]), axis=-1)
      # The last one is 1 but for rounding; ids behind it have no mass.
      find = jax.vmap(lambda mass, at: jnp.searchsorted(mass, at, side="right"))
      ids = find(mass, at * mass[:, -1:])
      return jnp.minimum(ids, mass.shape[-1] - 1).astype(jnp.int32)

    streams = {"teacher": outputs.dense}
    ids = losses.walk_tokens(of, streams, at, frozen=("teacher",))
    return {"ids": jnp.sort(ids, axis=-1)}

  def encode(self, said, vocab_size):
    ids, counts, unique = _runs(said["ids"])
    return b"".join(
      (
        unique.astype(np.uint8).tobytes(),
        counts.astype(np.uint8).tobytes(),
        _ids_to_bytes(ids, vocab_size),
      )
    )

  def decode(self, record, count, vocab_size, width):
    unique = np.frombuffer(record, np.uint8, count).astype(np.int64)
    total = int(unique.sum())
    counts = np.frombuffer(record, np.uint8, total, offset=count)
    ids, _ = _ids_from_bytes(record[count + total :], total, vocab_size)
    said = self.blank((count,), width)
    there = np.arange(width) < unique[:, None]
    said["ids"][there] = ids
    said["log_probs"][:] = -np.inf
    said["log_probs"][there] = np.log(counts / self.draws)
    return said

  def width(self, said):
    return int(_runs(said["ids"])[2].max(initial=1))

  def figures(self, said):
    return {"unique": float(_runs(said["ids"])[2].sum())}

  def blank(self, shape, width):
    return {
      "ids": np.zeros((*shape, width), np.int32),
      "log_probs": np.zeros((*shape, width), np.float32),
    }

  def signal(self, arrays, rest):
    del rest
    return types.Sparse(**arrays, log_rest=None, rest="drawn")

  def check_rest(self, rest, where):
    if rest not in (None, "drawn"):
      raise types.UserError(
        f"{where} is {rest!r}, but these ids were drawn from the teacher, and "
        "stand for all of it; leave it out"
      )


@dataclasses.dataclass(frozen=True)
class Hidden(Format):
  """The hidden states that the teacher's head reads: its whole distribution.

  "int8" has one scale for each position.
  """

  dtype: Literal["bfloat16", "int8"] = "bfloat16"
  name: ClassVar[str] = "hidden"

  def say(self, outputs, seeds):
    del seeds
    if self.dtype == "bfloat16":
      return {"hidden": outputs.hidden.astype(jnp.bfloat16)}
    hidden = outputs.hidden.astype(jnp.float32)
    scale = jnp.abs(hidden).max(axis=-1) / 127
    whole = jnp.where(scale == 0, 1.0, scale)[..., None]
    return {"hidden": jnp.round(hidden / whole).astype(jnp.int8),
            "scale": scale}  # fmt: skip

  def encode(self, said, vocab_size):
    del vocab_size
    record = np.ascontiguousarray(said["hidden"]).tobytes()
    if self.dtype == "int8":
      record += said["scale"].astype("<f4").tobytes()
    return record

  def decode(self, record, count, vocab_size, width):
    del vocab_size
    if self.dtype == "bfloat16":
      found = np.frombuffer(record, ml_dtypes.bfloat16)
      return {"hidden": found.reshape(count, width)}
    size = count * width
    whole = np.frombuffer(record, np.int8, size).reshape(count, width)
    scale = np.frombuffer(record, "<f4", count, offset=size)
    return {"hidden": whole * scale[:, None]}

  def width(self, said):
    return said["hidden"].shape[-1]

  def blank(self, shape, width):
    dtype = np.float32 if self.dtype == "int8" else ml_dtypes.bfloat16
    return {"hidden": np.zeros((*shape, width), dtype)}

  def signal(self, arrays, rest):
    del rest
    return types.Outputs(arrays["hidden"], None, {}, {})

  def check_rest(self, rest, where):
    if rest is not None:
      raise types.UserError(
        f"{where} is {rest!r}, but hidden states give every id's probability; "
        "leave it out"
      )


FORMATS = {cls.name: cls for cls in (TopK, Sampled, Hidden)}


def _runs(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Of sorted ids [N, D]: each different one of a row, how often it comes, and
  how many there are per row [N]."""
  first = np.ones(ids.shape, bool)
  first[:, 1:] = ids[:, 1:] != ids[:, :-1]
  starts = np.flatnonzero(first)
  counts = np.diff(np.append(starts, ids.size))
  return ids[first], counts, first.sum(axis=1)


def _id_size(vocab_size: int) -> int:
  return 2 if vocab_size <= 1 << 16 else 3


def _ids_to_bytes(ids: np.ndarray, vocab_size: int) -> bytes:
  parts = np.ascontiguousarray(ids, "<u4").reshape(-1, 1).view(np.uint8)
  return parts[:, : _id_size(vocab_size)].tobytes()


def _ids_from_bytes(
  data: bytes, count: int, vocab_size: int
) -> tuple[np.ndarray, bytes]:
  """Ids [count], and what is behind them."""
  size = _id_size(vocab_size)
  parts = np.zeros((count, 4), np.uint8)
  used = np.frombuffer(data, np.uint8, count * size)
  parts[:, :size] = used.reshape(count, size)
  return parts.view("<i4")[:, 0].astype(np.int32), data[count * size :]
