# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Batches, their state, and changed numbers of processes."""

import itertools
import json

import numpy as np
import pytest

from jdistill import data, types

SEQ_LEN = 16
BATCH = 8


def documents():
  rng = np.random.default_rng(7)
  lengths = rng.integers(2, 60, size=90)
  return [1000 * d + np.arange(n) for d, n in enumerate(lengths)]


def make(process_index=0, process_count=1, **changes):
  options = {"seq_len": SEQ_LEN, "batch_size": BATCH, "seed": 3} | changes
  return data.from_documents(
    documents(),
    process_index=process_index,
    process_count=process_count,
    **options,
  )


def global_batches(process_count, steps, state=None, **changes):
  """The batches as the processes together see them, and their states."""
  loaders = [make(i, process_count, **changes) for i in range(process_count)]
  for loader in loaders:
    if state is not None:
      loader.restore(state)
  batches = []
  for _ in range(steps):
    parts = [next(loader) for loader in loaders]
    batches.append(
      {
        # Row r of the global batch is row r // n of process r % n.
        k: np.stack([p[k] for p in parts], 1).reshape(
          BATCH, *parts[0][k].shape[1:]
        )
        for k in parts[0]
      }
    )
  states = [loader.state() for loader in loaders]
  for loader in loaders:
    loader.close()
  return batches, states


def same(a, b):
  assert len(a) == len(b)
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      np.testing.assert_array_equal(x[name], y[name])


def test_shapes_and_types_are_those_of_a_batch():
  batch = next(make(1, 2))
  kinds = {k: (v.shape, v.dtype) for k, v in batch.items()}
  ids = ((BATCH // 2, SEQ_LEN), np.dtype(np.int32))
  assert kinds == {
    "tokens": ids,
    "targets": ids,
    "positions": ids,
    "segment_ids": ids,
    "mask": ((BATCH // 2, SEQ_LEN), np.dtype(np.float32)),
    "example_id": ((BATCH // 2,), np.dtype(np.int32)),
  }


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 8])
def test_any_number_of_processes_takes_up_where_any_other_left(before, after):
  # 25 batches are more than one pass, so the orders of two passes are met.
  whole, _ = global_batches(1, 25)
  first, states = global_batches(before, 9)
  assert all(state == states[0] for state in states)
  state = json.loads(json.dumps(states[0]))
  rest, _ = global_batches(after, 16, state)
  same(whole, first + rest)


def test_the_global_batch_may_change_when_going_on():
  whole, _ = global_batches(1, 6)
  loader = make()
  next(loader)
  state = loader.state()
  small = make(batch_size=4)
  small.restore(state)
  np.testing.assert_array_equal(
    np.concatenate([next(small)["tokens"], next(small)["tokens"]]),
    whole[1]["tokens"],
  )


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_change_nothing(threads):
  same(global_batches(1, 12)[0], global_batches(1, 12, num_threads=threads)[0])


def test_each_pass_has_every_row_in_a_new_order():
  loader = make()
  rows = loader.num_rows
  assert rows % BATCH
  ids = np.concatenate([next(loader)["example_id"] for _ in range(2 * rows)])
  first, second = ids[:rows], ids[rows : 2 * rows]
  assert sorted(first) == sorted(second) == list(range(rows))
  assert (first != second).any()


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("shuffle", [True, False])
def test_one_pass_loses_no_target_and_keeps_shapes(processes, shuffle):
  loaders = [
    make(i, processes, epochs=1, shuffle=shuffle) for i in range(processes)
  ]
  batches = [b for loader in loaders for b in loader]
  assert {b["tokens"].shape for b in batches} == {(BATCH // processes, SEQ_LEN)}
  pairs = [
    pair
    for b in batches
    for pair in zip(
      b["tokens"][b["mask"] > 0], b["targets"][b["mask"] > 0], strict=True
    )
  ]
  expected = [p for d in documents() for p in itertools.pairwise(d)]
  assert sorted(pairs) == sorted(expected)
  assert loaders[0].num_tokens == len(expected)
  ids = np.concatenate([b["example_id"] for b in batches])
  assert len(set(ids.tolist())) == len(ids)
  filled = ids >= loaders[0].num_rows
  masks = np.concatenate([b["mask"] for b in batches])
  assert (masks.sum(1) > 0).tolist() == (~filled).tolist()
  assert len(ids) == loaders[0].num_batches * BATCH


def test_a_finished_pass_stays_finished_and_can_be_restored():
  loader = make(epochs=1)
  start = loader.state()
  count = sum(1 for _ in loader)
  assert count == loader.num_batches
  end = loader.state()
  assert list(loader) == []
  other = make(epochs=1)
  other.restore(end)
  assert list(other) == []
  other.restore(start)
  assert sum(1 for _ in other) == count


def test_another_seed_gives_another_order():
  one = next(make(seed=1))["example_id"]
  two = next(make(seed=2))["example_id"]
  assert one.tolist() != two.tolist()


@pytest.mark.parametrize(
  "changes",
  [{"seed": 4}, {"seq_len": 12}, {"packing": "pad"}, {"shuffle": False}],
  ids=lambda c: next(iter(c)),
)
def test_a_state_of_other_rows_is_refused(changes):
  with pytest.raises(types.UserError, match="saved with other rows"):
    make(**changes).restore(make().state())


def test_what_is_no_state_is_refused():
  with pytest.raises(types.UserError, match="expected the fields data and"):
    make().restore({"next": 3})


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"process_count": 3}, "batch_size is 8, which does not divide among 3"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"epochs": 0}, "epochs is 0; expected at least 1"),
    ({"seq_len": 1}, "seq_len is 1; expected at least 2"),
    ({"seed": -1}, "seed is -1"),
  ],
)
def test_faults_of_the_config(changes, message):
  with pytest.raises(types.UserError, match=message):
    make(**changes)


def test_documents_without_a_target_are_refused():
  with pytest.raises(types.UserError, match="2 documents give no token to"):
    data.from_documents([[1], [2]], seq_len=8, batch_size=1)


def test_rows_are_full_and_the_share_is_told():
  loader = make(epochs=1)
  places = sum(int((b["segment_ids"] > 0).sum()) for b in loader)
  assert loader.efficiency == places / (loader.num_rows * SEQ_LEN)
  assert loader.efficiency > 0.9
  assert make(packing="pad").efficiency < loader.efficiency
