# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdistill.data import mixture


class Named:
  def __init__(self, name, count):
    self._name, self._count = name, count

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    return {"row": (self._name, index)}


WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@given(WEIGHTS)
def test_shares_are_whole_positive_and_proportional(weights):
  shares = mixture.shares(weights)
  assert sum(shares) == 1 << 20
  for share, weight in zip(shares, weights, strict=True):
    assert share > 0
    assert share / (1 << 20) == pytest.approx(weight / sum(weights), abs=2e-6)


@given(WEIGHTS)
@settings(deadline=None, max_examples=30)
def test_quotas_are_exact_among_any_first_draws(weights):
  quotas = mixture.shares(weights)
  counts = collections.Counter()
  for i in range(400):
    source, before = mixture.draw(i, quotas)
    assert before == counts[source]
    counts[source] += 1
    for k, quota in enumerate(quotas):
      expected = (i + 1) * quota / (1 << 20)
      assert abs(counts[k] - expected) < len(quotas)


def test_quotas_hold_far_out_too():
  quotas = mixture.shares([0.7, 0.2, 0.1])
  for start in (10**9, 10**15):
    counts = collections.Counter(
      mixture.draw(i, quotas)[0] for i in range(start, start + 1000)
    )
    assert [counts[k] for k in range(3)] == pytest.approx(
      [700, 200, 100], abs=2
    )


def test_each_source_is_passed_through_whole_before_it_starts_again():
  sources = [Named("a", 7), Named("b", 3)]
  draws = mixture.Draws(sources, [2.0, 1.0], seed=1, shuffle=True)
  rows = [draws[i]["row"] for i in range(6 * 7 + 3)]
  for name, count in (("a", 7), ("b", 3)):
    drawn = [row for n, row in rows if n == name]
    passes = [
      drawn[i : i + count] for i in range(0, len(drawn) - count + 1, count)
    ]
    assert len(passes) >= 4
    assert all(sorted(p) == list(range(count)) for p in passes)
    assert len({tuple(p) for p in passes}) > 1


def test_the_order_depends_on_the_seed_alone():
  def rows(seed):
    draws = mixture.Draws([Named("a", 50)], [1.0], seed=seed, shuffle=True)
    return [draws[i]["row"] for i in range(50)]

  assert rows(3) == rows(3)
  assert rows(3) != rows(4)


def test_permutation_is_what_it_has_always_been():
  # A checkpoint of an older version must find its rows again.
  assert mixture.permutation(8, 5, 0, 1).tolist() == [0, 3, 2, 7, 1, 6, 4, 5]


def test_passes_have_every_row_once_and_fill_the_last_batch():
  sources = [Named("a", 4), Named("b", 3)]
  passes = mixture.Passes(
    sources, {"row": None}, epochs=2, batch_size=4, seed=0, shuffle=True
  )
  rows = [passes[i] for i in range(len(passes))]
  assert len(rows) == 16
  every = sorted([("a", i) for i in range(4)] + [("b", i) for i in range(3)])
  first = [r["row"] for r in rows[:7]]
  second = [r["row"] for r in rows[7:14]]
  assert sorted(first) == every
  assert sorted(second) == every
  assert first != second
  assert [r["row"] for r in rows[14:]] == [None, None]
  assert [int(r["example_id"]) for r in rows[14:]] == [7, 8]


def test_without_shuffling_rows_come_as_stored():
  passes = mixture.Passes(
    [Named("a", 2), Named("b", 1)],
    {"row": None},
    epochs=1,
    batch_size=3,
    seed=0,
    shuffle=False,
  )
  assert [passes[i]["row"] for i in range(3)] == [("a", 0), ("a", 1), ("b", 0)]
