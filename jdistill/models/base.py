# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What every model family offers: parameters apart from the function."""

import abc
from collections.abc import Callable
from typing import Any

import jax

from jdistill import types


class Architecture(abc.ABC):
  """A model without parameters: hashable, so jit may close over it.

  Parameters are nested dicts of arrays. `bind` gives a callable
  `model(view, want=()) -> Outputs` closed over them; binding costs nothing at
  run time and happens inside the jitted step.
  """

  @property
  @abc.abstractmethod
  def vocab_size(self) -> int:
    """Number of logits: tokens of the vocabulary, or classes."""

  @property
  def hears(self) -> str | None:
    """The teacher that its model goes by, or None.

    Such a model is called as `model(view, want, heard=outputs, keys=keys)` with
    that teacher's outputs of the view, the feature "embed" among them, and in
    training a key for each row.
    """
    return None

  @abc.abstractmethod
  def init(self, key: jax.Array) -> types.PyTree:
    """Draws parameters, float32 unless the architecture says otherwise."""

  @abc.abstractmethod
  def axes(self) -> types.PyTree:
    """A tuple of logical axis names for each parameter, None for unnamed."""

  @abc.abstractmethod
  def bind(self, params: types.PyTree) -> types.Model:
    """The model with these parameters."""

  def last_layer(
    self, params: types.PyTree
  ) -> tuple[types.PyTree, Callable[[types.PyTree], types.Model]]:
    """Parameters of the last layer, and `bind` when these are given.

    Args:
      params: all parameters, or something of their tree's shape.
    Raises: UserError where the architecture does not say which they are.
    """
    del params
    raise types.UserError(
      f"{type(self).__name__} does not say which parameters are its last "
      'layer; name them: GradMag(last=("head/*",))'
    )

  def trainable(self) -> types.PyTree | None:
    """A bool for each parameter that an optimizer may move; None for all."""
    return None

  def for_evaluation(self) -> "Architecture":
    """The model as a teacher or under evaluation: it updates nothing."""
    return self

  def shapes(self) -> types.PyTree:
    """The parameters' shapes and dtypes; nothing is allocated."""
    return jax.eval_shape(lambda: self.init(jax.random.key(0)))


def num_params(shapes: types.PyTree) -> int:
  """Number of parameters in a tree of arrays or shapes."""
  leaves: list[Any] = jax.tree.leaves(shapes)
  return sum(leaf.size for leaf in leaves)
