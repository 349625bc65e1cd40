# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Optimizers as configuration, built from optax; freeze masks."""

import abc
import dataclasses
import fnmatch
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from jdistill import paths as paths_lib
from jdistill import schedules, types

HEAD_AXES = ("heads", "kv_heads", "head_dim")
"""Logical axes that together are the output of one product."""

STACKS = ("layers", "expert")
"""Logical axes along which parameters are many of a kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(abc.ABC):
  """What all optimizers share.

  `rates` multiplies the learning rate of parameters whose path matches a
  pattern (`student/embed/*`); the first match counts.
  """

  lr: float | schedules.Schedule = 1e-3
  weight_decay: float = 0.0
  clip_norm: float | None = 1.0
  rates: dict[str, float] = dataclasses.field(default_factory=dict)

  @abc.abstractmethod
  def core(self, axes: types.PyTree) -> optax.GradientTransformation:
    """The update rule, learning rate and weight decay included."""

  def rate(self, step: Any) -> jax.Array:
    """The base learning rate at a step, []."""
    return schedules.at(self.lr, step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
  """AdamW (Loshchilov & Hutter, 2019, arXiv:1711.05101).

  Norms and biases are not decayed. `moments` is what the first moments are
  stored in; the second ones are float32, which their small steps need.
  """

  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  moments: Literal["float32", "bfloat16"] = "float32"

  def core(self, axes: types.PyTree) -> optax.GradientTransformation:
    return optax.adamw(
      self.rate,
      b1=self.b1,
      b2=self.b2,
      eps=self.eps,
      mu_dtype=self.moments,
      weight_decay=self.weight_decay,
      mask=map_axes(is_matrix, axes),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
  """Muon (Jordan et al., 2024) on matrices, AdamW on the rest.

  Embeddings, heads, norms and biases take AdamW at `adam_lr`. Matrix axes
  come from the logical axes, so stacked layers and split heads are
  orthogonalised one matrix each. `rms` scales updates to the root mean square
  of an Adam update (Liu et al., 2025, arXiv:2502.16982), so both share scale.
  """

  momentum: float = 0.95
  ns_steps: int = 5
  adam_lr: float | schedules.Schedule | None = None
  b1: float = 0.9
  b2: float = 0.95
  rms: float | None = 0.2

  def core(self, axes: types.PyTree) -> optax.GradientTransformation:
    adam = self.lr if self.adam_lr is None else self.adam_lr

    def adam_rate(step: Any) -> jax.Array:
      return schedules.at(adam, step)

    # optax's Muon decays all that it gives to AdamW, so vectors stay outside.
    decayed = contrib.muon(
      self.rate,
      ns_steps=self.ns_steps,
      beta=self.momentum,
      weight_decay=self.weight_decay,
      adam_b1=self.b1,
      adam_b2=self.b2,
      adam_weight_decay=self.weight_decay,
      adam_learning_rate=adam_rate,
      muon_weight_dimension_numbers=map_axes(
        lambda a: matrix_axes(a) if is_matrix(a) else optax.MaskedNode(), axes
      ),
      consistent_rms=self.rms,
    )
    plain = optax.adam(adam_rate, b1=self.b1, b2=self.b2)
    labels = map_axes(lambda a: "decayed" if is_matrix(a) else "plain", axes)
    return optax.partition({"decayed": decayed, "plain": plain}, labels)


def make(
  optimizer: Optimizer, axes: types.PyTree, mask: types.PyTree | None = None
) -> optax.GradientTransformation:
  """The optax chain: clip, update rule, per-group rates.

  Args:
    optimizer: its configuration.
    axes: logical axes, a tuple for every trained parameter.
    mask: of `trainable`; parameters that stay as a whole get no moments and
      no updates.
  """
  if mask is not None and not all(jax.tree.leaves(moves(mask))):
    moving = map_axes(
      lambda a, m: a if m else optax.MaskedNode(), axes, moves(mask)
    )
    return optax.partition(
      {True: make(optimizer, moving), False: optax.set_to_zero()}, moves(mask)
    )
  chain = []
  if optimizer.clip_norm is not None:
    chain.append(optax.clip_by_global_norm(optimizer.clip_norm))
  chain.append(optimizer.core(axes))
  if optimizer.rates:
    chain.append(_scale_groups(optimizer.rates, axes))
  return optax.chain(*chain)


def moves(mask: types.PyTree) -> types.PyTree:
  """Of masks by `trainable`: a bool each, False where nothing moves."""
  return jax.tree.map(lambda m: bool(np.any(m)), mask)


def map_axes(fn, axes: types.PyTree, *rest: types.PyTree) -> types.PyTree:
  """Maps over a tree whose leaves are tuples of axis names."""
  return jax.tree.map(fn, axes, *rest, is_leaf=_is_axes)


def _is_axes(x: Any) -> bool:
  return isinstance(x, tuple) and not isinstance(x, optax.MaskedNode)


def matrix_axes(axes: tuple[str | None, ...]):
  """Which axes of a parameter are a matrix's inputs and outputs.

  Returns: optax's `MuonDimensionNumbers`, or None for what is no hidden
    matrix: vectors, embeddings and heads.
  """
  if not is_matrix(axes) or "vocab" in axes:
    return None
  inner = [i for i, a in enumerate(axes) if a not in STACKS]
  split = [i for i in inner if axes[i] in HEAD_AXES]
  if len(split) == 2 and len(inner) == 3:
    other = next(i for i in inner if i not in split)
    pairs = ((other,), tuple(split))
    inputs, outputs = pairs if other < split[0] else pairs[::-1]
  else:  # kernels keep their outputs last
    inputs, outputs = tuple(inner[:-1]), (inner[-1],)
  return contrib.MuonDimensionNumbers(inputs, outputs)


def is_matrix(axes: tuple[str | None, ...]) -> bool:
  """Whether a parameter, one of each layer and expert, is more than a vector.

  Heads and their dimensions together are one axis: a bias of queries [H, Dh]
  is a vector.
  """
  inner = [a for a in axes if a not in STACKS]
  heads = sum(a in HEAD_AXES for a in inner)
  return len(inner) - max(heads - 1, 0) >= 2


def _scale_groups(rates, axes) -> optax.GradientTransformation:
  paths = jax.tree_util.tree_map_with_path(
    lambda path, _: paths_lib.name_of(path), axes, is_leaf=_is_axes
  )
  names = jax.tree.leaves(paths)
  paths_lib.matching("optimizer.rates", rates, names)

  def factor(name: str) -> float:
    found = [r for p, r in rates.items() if fnmatch.fnmatchcase(name, p)]
    return found[0] if found else 1.0

  return optax.stateless(
    lambda updates, params=None: jax.tree.map(
      lambda u, name: u * jnp.asarray(factor(name), u.dtype), updates, paths
    )
  )


@dataclasses.dataclass(frozen=True)
class Freeze:
  """Parameters that stay: a path pattern, and which leading rows of them.

  `rows` picks layers of stacked parameters or tokens of an embedding, as a
  half-open range; None freezes the whole.
  """

  pattern: str
  rows: tuple[int, int] | None = None


def trainable(
  freezes: tuple[Freeze, ...],
  params: types.PyTree,
  movable: types.PyTree | None = None,
) -> types.PyTree | None:
  """Masks, 1 where a parameter moves, that broadcast over each parameter.

  Args:
    freezes: what stays.
    params: nested dict of arrays or shapes, the trained tree.
    movable: a bool for each parameter that may move at all; None for all.
  Returns: float32 NumPy arrays [] or [L, 1, ...], or None if all moves.
  """
  if not freezes and movable is None:
    return None
  flat, tree = jax.tree_util.tree_flatten_with_path(params)
  names = [paths_lib.name_of(path) for path, _ in flat]
  masks = [np.ones((1,) * leaf.ndim, np.float32) for _, leaf in flat]
  for freeze in freezes:
    hits = paths_lib.matching("freeze", [freeze.pattern], names)
    for i in np.flatnonzero(hits):
      leaf = flat[i][1]
      if freeze.rows is None:
        masks[i] = np.zeros((1,) * leaf.ndim, np.float32)
        continue
      start, stop = freeze.rows
      if not 0 <= start < stop <= leaf.shape[0]:
        raise types.UserError(
          f"freeze: rows {freeze.rows} of {names[i]} lie outside its "
          f"{leaf.shape[0]} rows"
        )
      full = np.broadcast_to(
        masks[i], (leaf.shape[0],) + (1,) * (leaf.ndim - 1)
      ).copy()
      full[start:stop] = 0
      masks[i] = full
  if movable is not None:
    masks = [
      m * b for m, b in zip(masks, tree.flatten_up_to(movable), strict=True)
    ]
  return jax.tree.unflatten(tree, masks)
