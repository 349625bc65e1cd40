# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""How much each part of a sum, alone, moves the student's last layer."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from jdistill import paths, types
from jdistill.methods import base, grad_mag
from jdistill.models.base import Architecture
from jdistill.speaker import Tables, speakers

Models = tuple[Architecture, Mapping[str, Architecture], Any, Any]
"""The student and the teachers: architectures, then their parameters."""


def gradients(
  method: grad_mag.GradMag,
  models: Models,
  batch: types.Batch,
  ctx: base.Context,
  tables: Tables | None = None,
) -> dict[str, types.PyTree]:
  """Each part's gradient by the student's last layer, for `norms`.

  One forward pass, then for each part a walk over the tokens and the backward
  pass of that layer. They add up over microbatches.
  """
  student, teachers, params, teacher_params = models
  params = jax.lax.stop_gradient(params)
  own, bind = last_layer(student, params["student"], method.last)
  fixed = student, teachers, params, teacher_params

  views: tuple[str, ...] = ()

  def ask() -> None:
    nonlocal views
    learner, voices = speakers(method, fixed, batch, ctx.keys, tables)
    for name in method.active:
      method.alone(name, params["method"], learner, voices, batch, ctx)
    views = tuple(learner.said)

  jax.eval_shape(ask)
  learner, voices = speakers(method, fixed, batch, ctx.keys, tables)

  def alone(said: dict[str, types.Outputs], name: str) -> jax.Array:
    speaker = dataclasses.replace(learner, said=dict(said))
    own = params["method"]
    return method.alone(name, own, speaker, voices, batch, ctx).total

  def say(own: types.PyTree) -> dict[str, types.Outputs]:
    speaker = dataclasses.replace(learner, model=bind(own), said={})
    return {view: speaker(view) for view in views}

  said, back = jax.vjp(say, own)
  found = {}
  for name in method.active:
    [found[name]] = back(jax.grad(alone, allow_int=True)(said, name))
  return found


def norms(
  method: grad_mag.GradMag,
  student: Architecture,
  found: dict[str, types.PyTree],
  mask: types.PyTree | None,
) -> dict[str, jax.Array]:
  """Their norms, of what an optimizer may move, for `Context.norms`.

  Raises: UserError if all of the last layer is frozen.
  """
  if mask is not None:
    moved, _ = last_layer(student, mask["student"], method.last)
    if not any(np.any(m) for m in jax.tree.leaves(moved)):
      raise types.UserError(
        "GradMag: the student's last layer is frozen, so gradients by it say "
        "nothing; name a layer that is trained with `last`"
      )
    found = {
      name: jax.tree.map(lambda g, m: g * m, grads, moved)
      for name, grads in found.items()
    }
  return {
    base.join(name, grad_mag.GRADIENT): optax.global_norm(grads)
    for name, grads in found.items()
  }


def last_layer(
  student: Architecture, params: types.PyTree, patterns: tuple[str, ...]
) -> tuple[types.PyTree, Callable[[types.PyTree], types.Model]]:
  """Parameters of the last layer, and the model when these are given.

  Args:
    student: the model.
    params: its parameters, or something of their tree's shape.
    patterns: names of the parameters that are meant, in place of what the
      architecture says.
  Raises: UserError where the architecture does not say, or for a pattern that
    means none.
  """
  if not patterns:
    return student.last_layer(params)
  leaves, tree = jax.tree.flatten(params)
  names = paths.names(params)
  hits = paths.matching("GradMag.last", patterns, names)
  own = {
    n: leaf for n, leaf, hit in zip(names, leaves, hits, strict=True) if hit
  }

  def bind(own: types.PyTree) -> types.Model:
    mixed = [own.get(n, leaf) for n, leaf in zip(names, leaves, strict=True)]
    return student.bind(jax.tree.unflatten(tree, mixed))

  return own, bind
