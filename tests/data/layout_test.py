# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdistill.data import layout

DOCUMENT_LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def documents(lengths):
  """Documents whose every token tells the document and the place in it."""
  docs = [100 * d + np.arange(n) + 1 for d, n in enumerate(lengths)]
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  return docs, np.concatenate(docs).astype(np.int32), offsets


def one_by_one(lengths, capacity):
  """Best fit decreasing as the textbook has it: free space of each bin."""
  free = []
  for length in sorted(lengths, reverse=True):
    fitting = [(space, b) for b, space in enumerate(free) if space >= length]
    if fitting:
      free[min(fitting)[1]] -= length
    else:
      free.append(capacity - length)
  return sorted(free)


@given(DOCUMENT_LENGTHS, st.integers(2, 17), st.sampled_from(["pack", "pad"]))
@settings(deadline=None, max_examples=150)
def test_rows_hold_every_pair_of_every_document_once(lengths, seq_len, how):
  docs, flat, offsets = documents(lengths)
  pieces = layout.cut(offsets, seq_len)
  pack = layout.best_fit if how == "pack" else None
  bins = (
    pack(pieces.length, seq_len) if pack else layout.one_each(pieces.length)
  )
  seen = []
  for b in range(len(bins)):
    members = bins[b]
    row = layout.lay_out(
      flat, pieces.start[members], pieces.length[members], seq_len
    )
    used = row["segment_ids"] > 0
    np.testing.assert_array_equal(row["mask"], used.astype(np.float32))
    for name in ("tokens", "targets", "positions"):
      assert not row[name][~used].any()
    for segment in range(1, row["segment_ids"].max() + 1):
      here = row["segment_ids"] == segment
      tokens, targets = row["tokens"][here], row["targets"][here]
      # Consecutive numbers: the successor, in the same document.
      np.testing.assert_array_equal(targets, tokens + 1)
      assert len(set((tokens - 1) // 100) | set((targets - 1) // 100)) == 1
      np.testing.assert_array_equal(
        row["positions"][here], np.arange(here.sum())
      )
      seen += list(zip(tokens.tolist(), targets.tolist(), strict=True))
  expected = [
    pair for d in docs for pair in zip(d.tolist(), d[1:].tolist(), strict=False)
  ]
  assert sorted(seen) == sorted(expected)


@given(st.lists(st.integers(1, 20), max_size=80), st.integers(20, 30))
@settings(deadline=None, max_examples=150)
def test_groups_give_what_placing_one_by_one_gives(lengths, capacity):
  bins = layout.best_fit(np.array(lengths, int), capacity)
  loads = [sum(lengths[i] for i in bins[b]) for b in range(len(bins))]
  assert sorted(
    np.concatenate([bins[b] for b in range(len(bins))] or [[]])
  ) == (list(range(len(lengths))))
  assert sorted(capacity - x for x in loads) == one_by_one(lengths, capacity)


def test_documents_that_fit_are_never_cut():
  _, _, offsets = documents([9, 10, 11, 3, 31])
  pieces = layout.cut(offsets, seq_len=9)
  # Pairs: 8, 9, 10, 2, 30.
  assert pieces.length.tolist() == [8, 9, 9, 1, 2, 9, 9, 9, 3]
  assert pieces.start.tolist() == [0, 9, 19, 28, 30, 33, 42, 51, 60]


def test_bins_come_in_the_order_of_their_first_document():
  bins = layout.best_fit(np.array([2, 9, 1, 8, 7]), 10)
  firsts = [int(bins[b][0]) for b in range(len(bins))]
  assert firsts == sorted(firsts)
  assert firsts[0] == 0


def test_packing_wastes_little_on_lengths_like_those_of_text():
  rng = np.random.default_rng(0)
  lengths = np.exp(rng.normal(5.5, 1.1, 4000)).astype(int).clip(1, 30_000)
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  pieces = layout.cut(offsets, 512)
  bins = layout.best_fit(pieces.length, 512)
  assert pieces.length.sum() / (len(bins) * 512) > 0.97


def test_targets_not_to_be_learnt_have_mask_zero():
  tokens = np.arange(10, 16, dtype=np.int32)
  learn = np.array([0, 0, 1, 1, 0, 1], np.uint8)
  row = layout.lay_out(tokens, [0], [5], 6, learn)
  assert row["targets"].tolist() == [11, 12, 13, 14, 15, 0]
  assert row["mask"].tolist() == [0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_documents_too_short_for_a_target_give_no_piece(count):
  assert len(layout.cut(np.array([0, count]), 4)) == 0
