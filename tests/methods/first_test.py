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
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("how", ["temperature", "smoothing"])
def test_it_is_the_kl_to_recalibrated_top_ids(how, sparse):
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 6, 11)) * 2
  method = methods.FIRST(top=4, recalibrate=how, temperature=1.7, delta=0.07)
  q_logits, p_logits = jnp.asarray(student), jnp.asarray(teacher)
  if sparse:
    ids = np.argsort(-teacher, -1)[:, :4].astype(np.int32)
    log_p = np.log(np.take_along_axis(softmax(teacher), ids, -1))
    said = types.Sparse(ids, log_p, np.zeros(6), "renormalise_both")
    q_logits, p_logits = losses.coarse(q_logits, said)
  found = method.terms(
    {"student": q_logits, "teacher": p_logits}, {}, {}, jnp.int32(0)
  )["forward_kl"].value
  for row in range(6):
    top = np.argsort(-teacher[row])[:4]
    p = softmax(teacher[row])[top]
    if how == "temperature":
      p = p ** (1 / 1.7)
      p = p / p.sum()
    else:
      p = p / p.sum()
      p = p + np.array([-0.07, 0.07 / 3, 0.07 / 3, 0.07 / 3])
    q = softmax(student[row])[top]
    q = q / q.sum()
    np.testing.assert_allclose(found[row], (p * np.log(p / q)).sum(), rtol=1e-9)
