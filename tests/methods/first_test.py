# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""FIRST's loss, against its equations in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses, methods, types


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("how", ["temperature", "smoothing"])
def test_it_is_the_kl_to_recalibrated_top_ids(how, sparse, other):
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 6, 11)) * 2
  method = methods.FIRST(4, how, 1.7, 0.07, other)
  q_logits, p_logits = jnp.asarray(student), jnp.asarray(teacher)
  if sparse:
    ids = np.argsort(-teacher, -1)[:, :4].astype(np.int32)
    log_p = np.log(np.take_along_axis(softmax(teacher), ids, -1))
    rest = "bucket" if other else "renormalise_both"
    log_rest = np.log1p(-np.exp(log_p).sum(-1))
    said = types.Sparse(ids, log_p, log_rest, rest)
    q_logits, p_logits = losses.coarse(q_logits, said)
  found = method.terms(
    {"student": q_logits, "teacher": p_logits}, {}, {}, jnp.int32(0)
  )["forward_kl"].value
  for row in range(6):
    top = np.argsort(-teacher[row])[:4]
    p, q = (softmax(x[row]) for x in (teacher, student))
    p, q = ([*x[top], x.sum() - x[top].sum()] for x in (p, q))
    p, q = (np.array(x if other else x[:4]) for x in (p, q))
    p, q = p / p.sum(), q / q.sum()
    if how == "temperature":
      p = p ** (1 / 1.7)
      p = p / p.sum()
    else:
      first = p.argmax()
      p = p + 0.07 / (len(p) - 1)
      p[first] -= 0.07 + 0.07 / (len(p) - 1)
    np.testing.assert_allclose(found[row], (p * np.log(p / q)).sum(), rtol=1e-9)
