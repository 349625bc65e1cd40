# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A walk over tokens that the devices of a mesh have divided among them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

from jdistill import types

Streams = Mapping[str, types.Dense]


class Args(NamedTuple):
  """What a walk reads, apart by what receives a gradient."""

  live: Any  # {stream: Dense}
  params: Any
  frozen: Any  # {stream: Dense}
  data: Any
  real: Any = None  # [C], False where a chunk is only filled up


class Division(NamedTuple):
  """Mesh axes that divide the tokens, those of size 1 left out."""

  rows: tuple[str, ...]
  positions: tuple[str, ...]

  @property
  def all(self) -> tuple[str, ...]:
    return self.rows + self.positions

  @property
  def spec(self) -> PartitionSpec:
    return PartitionSpec(self.rows, *filter(None, [self.positions]))


def division_of(args: Args) -> Division:
  """How the mesh in context divides the tokens of a walk."""
  rows = tuple(a for a in types.BATCH_AXES if types.axis_size(a) > 1)
  size = types.axis_size(types.CONTEXT_AXIS)
  first = next(iter({**args.live, **args.frozen}.values())).hidden
  fits = size > 1 and first.ndim > 2 and first.shape[1] % size == 0
  return Division(rows, (types.CONTEXT_AXIS,) if fits else ())


def _narrow(streams: Streams) -> Streams:
  def one(stream: types.Dense) -> types.Dense:
    narrow = getattr(stream.head, "narrow", None)
    if narrow is None:
      return stream
    return types.Dense(stream.hidden, narrow(stream.hidden.dtype))

  return {k: one(s) for k, s in streams.items()}


def on_mesh(local, args: Args):
  """Runs `local` on each device's tokens.

  `local(args)` returns sums over its tokens, which are added up over the
  devices, and arrays with the tokens' leading axes.
  """
  # Narrow before the shards are gathered; gradients stay in the head's dtype.
  args = args._replace(live=_narrow(args.live), frozen=_narrow(args.frozen))
  division = division_of(args)
  if not division.all:
    return local(args)
  tokens, whole = division.spec, PartitionSpec()

  def spec(streams):
    return {
      k: types.Dense(tokens, jax.tree.map(lambda _: whole, s.head))
      for k, s in streams.items()
    }

  def summed(args):
    sums, arrays = local(args)
    return jax.lax.psum(sums, division.all), arrays

  return jax.shard_map(
    summed,
    in_specs=(Args(spec(args.live), whole, spec(args.frozen), tokens),),
    out_specs=(whole, tokens),
    axis_names=set(division.all),
    check_vma=False,
  )(args)
