# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Distances between hidden states of any two widths, one value per position.

The student's features go through an affine projector to the teacher's width
where the widths differ; its arrays are the caller's, as they are trained. The
arithmetic is at least float32. Gradients flow to both sides and the projector.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdistill.losses.pairs import compute_dtype
from jdistill.types import Scalar, UserError

Distances: TypeAlias = Float[Array, "*B"]


@jax.jit
def project(
  features: Float[Array, "*B D"],
  kernel: Float[Array, "D E"],
  bias: Float[Array, " E"] | None = None,
) -> Float[Array, "*B E"]:
  """`features @ kernel + bias`, in at least float32.

  Args:
    features: [*B, D] hidden states.
    kernel: [D, E].
    bias: [E], or None.
  Returns: [*B, E].
  References: Romero et al., 2014 (the regressor), arXiv:1412.6550; Jiao et
    al., 2019, arXiv:1909.10351.
  Example:
    >>> project(jnp.ones((2, 3)), jnp.ones((3, 5))).shape
    (2, 5)
  """
  dtype = compute_dtype(features, kernel)
  out = jnp.einsum(
    "...d,de->...e", features, kernel, preferred_element_type=dtype
  )
  if bias is None:
    return out
  bias = bias.astype(dtype)
  return out + jnp.expand_dims(bias, tuple(range(out.ndim - 1)))


def _aligned(student, teacher, kernel, bias):
  dtype = compute_dtype(student, teacher)
  if kernel is not None:
    student = project(student, kernel, bias)
  elif bias is not None:
    raise UserError("A projector has a bias but no kernel: give both.")
  if student.shape != teacher.shape:
    raise UserError(
      f"Features of shape {student.shape} (student"
      f"{'' if kernel is None else ', projected'}) cannot be compared with "
      f"{teacher.shape} (teacher): give a projector `kernel` of shape "
      "[student width, teacher width] and equal leading axes."
    )
  return student.astype(dtype), teacher.astype(dtype)


@jax.jit
def mse(
  student: Float[Array, "*B D"],
  teacher: Float[Array, "*B E"],
  *,
  kernel: Float[Array, "D E"] | None = None,
  bias: Float[Array, " E"] | None = None,
) -> Distances:
  """Squared difference, the mean over the width.

  Args:
    student: [*B, D] features; gradients flow.
    teacher: [*B, E] features; stopping gradients is the caller's job.
    kernel: [D, E] projector of the student's features, or None where D == E.
    bias: [E] of the projector, or None.
  Returns: [*B], unreduced over positions.
  Raises: UserError if the shapes do not fit.
  References: Romero et al., 2014, arXiv:1412.6550.
  Example:
    >>> print(mse(jnp.zeros((2, 4)), jnp.full((2, 4), 3.0)))
    [9. 9.]
  """
  student, teacher = _aligned(student, teacher, kernel, bias)
  return jnp.mean(jnp.square(student - teacher), axis=-1)


@jax.jit
def smooth_l1(
  student: Float[Array, "*B D"],
  teacher: Float[Array, "*B E"],
  *,
  beta: Scalar = 1.0,
  kernel: Float[Array, "D E"] | None = None,
  bias: Float[Array, " E"] | None = None,
) -> Distances:
  """Absolute difference with a parabola of width beta at 0, mean over width.

  Args:
    student: [*B, D] features; gradients flow.
    teacher: [*B, E] features; stopping gradients is the caller's job.
    beta: where the parabola `d**2 / (2 beta)` meets the line `|d| - beta / 2`;
      0 is the plain absolute difference, with gradient 0 at 0.
    kernel: [D, E] projector of the student's features, or None where D == E.
    bias: [E] of the projector, or None.
  Returns: [*B], unreduced over positions.
  Raises: UserError if the shapes do not fit.
  References: Girshick, 2015, arXiv:1504.08083; Li et al., 2024 (EAGLE),
    arXiv:2401.15077.
  Example:
    >>> print(smooth_l1(jnp.array([0.0, 0.0]), jnp.array([0.5, 3.0])))
    1.3125
  """
  student, teacher = _aligned(student, teacher, kernel, bias)
  beta = jnp.asarray(beta, student.dtype)
  gap = jnp.abs(student - teacher)
  inside = gap <= beta
  parabola = jnp.square(gap) / (2 * jnp.where(beta > 0, beta, 1))
  return jnp.mean(jnp.where(inside, parabola, gap - beta / 2), axis=-1)


def unit(features: jax.Array) -> jax.Array:
  """[*B, D] scaled to length 1; zero vectors stay 0, with finite gradients."""
  size = jnp.max(jnp.abs(features), axis=-1, keepdims=True)
  size = jax.lax.stop_gradient(jnp.where(size > 0, size, 1))
  scaled = features / size  # squares neither overflow nor vanish
  square = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
  return scaled * jax.lax.rsqrt(jnp.where(square > 0, square, 1))


@jax.jit
def cosine(
  student: Float[Array, "*B D"],
  teacher: Float[Array, "*B E"],
  *,
  kernel: Float[Array, "D E"] | None = None,
  bias: Float[Array, " E"] | None = None,
) -> Distances:
  """1 - cosine similarity over the width, in [0, 2].

  It is half the squared distance of the two scaled to length 1 (the normalised
  squared error of patient distillation), and 1 where either is all zeros.

  Args:
    student: [*B, D] features; gradients flow.
    teacher: [*B, E] features; stopping gradients is the caller's job.
    kernel: [D, E] projector of the student's features, or None where D == E.
    bias: [E] of the projector, or None.
  Returns: [*B], unreduced over positions.
  Raises: UserError if the shapes do not fit.
  References: Sanh et al., 2019, arXiv:1910.01108; Sun et al., 2019,
    arXiv:1908.09355.
  Example:
    >>> print(cosine(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])))
    1.0
  """
  student, teacher = _aligned(student, teacher, kernel, bias)
  return 1 - jnp.sum(unit(student) * unit(teacher), axis=-1)


def layer_pairs(
  num_student: int,
  num_teacher: int,
  *,
  kind: Literal["skip", "last"] = "skip",
) -> tuple[tuple[int, int], ...]:
  """Which teacher layer each student layer imitates, counted from 0.

  Args:
    num_student: number of student layers.
    num_teacher: number of teacher layers, no fewer.
    kind: "skip" spreads over the teacher and ends at its last layer; "last"
      takes the teacher's last `num_student` layers.
  Returns: (student layer, teacher layer) for every student layer.
  Raises: UserError if the teacher has fewer layers.
  References: Sun et al., 2019, arXiv:1908.09355 (PKD-Skip, PKD-Last).
  Example:
    >>> layer_pairs(3, 12)
    ((0, 3), (1, 7), (2, 11))
    >>> layer_pairs(3, 12, kind="last")
    ((0, 9), (1, 10), (2, 11))
  """
  if not 1 <= num_student <= num_teacher:
    raise UserError(
      f"layer_pairs: {num_student} student layers cannot be spread over "
      f"{num_teacher} teacher layers; expected 1 <= student <= teacher."
    )
  if kind == "last":
    return tuple((i, num_teacher - num_student + i) for i in range(num_student))
  return tuple(
    (i, -(-(i + 1) * num_teacher // num_student) - 1)
    for i in range(num_student)
  )


def layer_mean(
  distance: Callable[..., jax.Array],
  student: Sequence[jax.Array],
  teacher: Sequence[jax.Array],
  *,
  pairs: Sequence[tuple[int, int]],
  kernels: Sequence[jax.Array | None] | None = None,
  biases: Sequence[jax.Array | None] | None = None,
) -> jax.Array:
  """The mean of a feature distance over pairs of layers.

  Args:
    distance: `mse`, `smooth_l1`, `cosine`, or one with their arguments.
    student: features by layer, each [*B, D]; widths may differ.
    teacher: features by layer, each [*B, E]; widths may differ.
    pairs: (student layer, teacher layer), as from `layer_pairs`.
    kernels: a projector [D, E] or None for each pair.
    biases: its bias [E] or None for each pair.
  Returns: [*B], unreduced over positions.
  Raises: UserError if there is no pair, or not one projector for each.
  References: Jiao et al., 2019 (TinyBERT), arXiv:1909.10351, with equal
    weights.
  Example:
    >>> layers = [jnp.zeros((2, 4)), jnp.ones((2, 4))]
    >>> print(layer_mean(mse, layers, layers, pairs=((0, 1), (1, 1))))
    [0.5 0.5]
  """
  count = len(pairs)
  kernels = [None] * count if kernels is None else kernels
  biases = [None] * count if biases is None else biases
  if not count or len(kernels) != count or len(biases) != count:
    raise UserError(
      f"layer_mean: {count} pairs of layers with {len(kernels)} kernels and "
      f"{len(biases)} biases; expected one or more pairs and as many of each."
    )
  values = [
    distance(student[i], teacher[j], kernel=kernel, bias=bias)
    for (i, j), kernel, bias in zip(pairs, kernels, biases, strict=True)
  ]
  return functools.reduce(jnp.add, values) / count
