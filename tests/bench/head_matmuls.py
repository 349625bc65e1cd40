# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The matmuls of two heads and nothing else: the floor of a loss.

A loss between a student and a frozen teacher takes four matmuls for each chunk
of tokens: both logits, and the gradients of the student's hidden states and of
its head. Between them lies the element-wise work of the loss, which makes the
logits' gradient G of both logits. Here there is none: the student's logits
stand for G in the gradient of the hidden states, the teacher's in that of the
head. Both have G's shape and dtype, so the matmuls are the real ones, each
result feeds the next, nothing can be left out, and no pass over the vocabulary
is made. The numbers are no gradients of anything, but they are finite and as
dear to compute.

Adding up the head's gradient over chunks belongs to the matmuls: there is no
chunked head gradient without it.

The recomputing mode makes both logits twice: six. Its first two matmuls give
one number per token each, a column of the logits; an optimization barrier keeps
the compiler from making that column alone.
"""

import jax
import jax.numpy as jnp

from jdistill import types


def four(student: types.Dense, teacher: types.Dense, chunk_bytes: int):
  """Stand-ins for d_hidden [N, Ds] and d_head [V, Ds] of one pass."""

  def body(total, chunk):
    student_logits = student.head(chunk[0])  # [C, V]
    teacher_logits = teacher.head(chunk[1])
    d_hidden = jnp.einsum("cv,vd->cd", student_logits, student.head.weight)
    d_head = jnp.einsum("cv,cd->vd", teacher_logits, chunk[0])
    return total + d_head, d_hidden

  zero = jnp.zeros(student.head.weight.shape, jnp.float32)
  d_head, d_hidden = jax.lax.scan(
    body, zero, _chunks(student, teacher, chunk_bytes)
  )
  num, width = student.hidden.shape
  return d_hidden.reshape(-1, width)[:num], d_head


def six(student: types.Dense, teacher: types.Dense, chunk_bytes: int):
  """Values [N], then what `four` gives."""

  def body(carry, chunk):
    both = student.head(chunk[0]), teacher.head(chunk[1])
    one, two = jax.lax.optimization_barrier(both)
    return carry, one[:, 0] + two[:, 0]

  _, values = jax.lax.scan(body, (), _chunks(student, teacher, chunk_bytes))
  num = student.hidden.shape[0]
  return values.reshape(-1)[:num], four(student, teacher, chunk_bytes)


def _chunks(student: types.Dense, teacher: types.Dense, chunk_bytes: int):
  """Both hidden states in the chunks that `losses.walk` would make of them."""
  num = student.hidden.shape[0]
  size = max(1, chunk_bytes // (4 * student.head.vocab_size))
  chunks = -(-num // size)
  size = -(-num // chunks)

  def cut(x):
    x = jnp.pad(x, [(0, chunks * size - num), (0, 0)])
    return x.reshape(chunks, size, -1)

  return cut(student.hidden), cut(teacher.hidden)
