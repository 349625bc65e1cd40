# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from jdistill import rollout, run, types
from jdistill.rollout import base

PROMPTS = [[5, 6, 7], [8], []]
ANSWERS = [[1, 2], [3, 4, 9, 9], [1]]


def a_batch(width=6, capacity=4):
  """Prompts without answers; the last row only fills the batch."""
  prompt = np.zeros((3, capacity), np.int32)
  for row, text in zip(prompt, PROMPTS, strict=True):
    row[: len(text)] = text
  empty = np.zeros((3, width), np.int32)
  arrays = {
    "tokens": empty, "targets": empty, "mask": empty.astype(np.float32),
    "positions": empty, "segment_ids": empty, "prompt": prompt,
    "prompt_length": np.array([3, 1, 0], np.int32),
    "example_id": np.arange(3, dtype=np.int32),
  }  # fmt: skip
  return jax.tree.map(jnp.asarray, run.to_batch(arrays))


def laid_out(width=6):
  tokens = np.zeros((3, 4), np.int32)
  for row, text in zip(tokens, ANSWERS, strict=True):
    row[: len(text)] = text
  counts = np.array([2, 4, 1], np.int32)
  scores = -1.0 - np.arange(12, dtype=np.float32).reshape(3, 4)
  arrays = map(jnp.asarray, (tokens, counts, scores, 2 * scores))
  return base.lay_out(a_batch(width), *arrays)


def test_answers_follow_their_prompts():
  view = laid_out()["student"]
  np.testing.assert_array_equal(view.tokens[0], [5, 6, 7, 1, 0, 0])
  np.testing.assert_array_equal(view.targets[0], [6, 7, 1, 2, 0, 0])
  np.testing.assert_array_equal(view.mask[0], [0, 0, 1, 1, 0, 0])
  np.testing.assert_array_equal(view.positions[0], [0, 1, 2, 3, 0, 0])
  np.testing.assert_array_equal(view.segment_ids[0], [1, 1, 1, 1, 0, 0])
  np.testing.assert_array_equal(view.targets[1], [3, 4, 9, 9, 0, 0])
  np.testing.assert_array_equal(view.mask[1], [1, 1, 1, 1, 0, 0])


def test_scores_lie_at_the_targets():
  batch = laid_out()
  np.testing.assert_array_equal(
    batch.data["log_probs"][0], [0, 0, -1, -2, 0, 0]
  )
  np.testing.assert_array_equal(
    batch.data["sampling_log_probs"][1], [-10, -12, -14, -16, 0, 0]
  )
  np.testing.assert_array_equal(batch.data["age"], [0, 0, 0])


def test_rows_that_only_fill_the_batch_stay_empty():
  view = laid_out()["student"]
  assert not view.mask[2].any()
  assert not view.segment_ids[2].any()


def test_what_does_not_fit_is_cut():
  view = laid_out(width=3)["student"]
  np.testing.assert_array_equal(view.targets, [[6, 7, 1], [3, 4, 9], [0] * 3])
  np.testing.assert_array_equal(view.mask, [[0, 0, 1], [1, 1, 1], [0] * 3])


def test_shapes_are_those_of_the_data_with_their_own_answers():
  given = rollout.answered(a_batch())
  written = laid_out()
  for one, other in zip(
    *(sorted(b.data.items()) for b in (given, written)), strict=True
  ):
    assert one[0] == other[0]
    assert (one[1].shape, one[1].dtype) == (other[1].shape, other[1].dtype)
  assert isinstance(written["student"], types.Tokens)
  assert written["student"].mask.dtype == jnp.float32
