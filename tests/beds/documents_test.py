# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Beds as data of a run."""

import json

import numpy as np
import pytest

from jdistill import beds, config_json, data, types

CHAIN = beds.MarkovChain(vocab_size=5, order=2, concentration=0.5, seed=3)
SUMS = beds.Arithmetic()


def rows_of(spec):
  """Rows by example, of one pass."""
  loader = data.load(spec, seed=0)
  rows = {}
  for batch in loader:
    for i, index in enumerate(batch["example_id"]):
      rows[int(index)] = {name: batch[name][i] for name in batch}
  loader.close()
  return rows


def test_every_document_comes_once():
  spec = beds.BedData(CHAIN, 6, seed=2, seq_len=5, batch_size=3, epochs=1)
  rows = rows_of(spec)
  assert sorted(rows) == list(range(6))
  for index, doc in enumerate(CHAIN.documents(2, 6, length=6)):
    row = rows[index]
    np.testing.assert_array_equal(row["tokens"], doc.tokens[:-1])
    np.testing.assert_array_equal(row["targets"], doc.tokens[1:])
    np.testing.assert_array_equal(row["positions"], range(5))
    assert row["mask"].sum() == row["segment_ids"].sum() == 5
  loader = data.load(spec, seed=0)
  assert (loader.num_rows, loader.num_tokens) == (6, 30)
  loader.close()


def test_sums_are_padded_and_their_prompts_do_not_count():
  spec = beds.BedData(SUMS, 20, "heldout", seq_len=10, batch_size=5, epochs=1)
  rows = rows_of(spec)
  for index, doc in enumerate(SUMS.documents(0, 20, "heldout")):
    row, length = rows[index], len(doc.tokens) - 1
    np.testing.assert_array_equal(row["targets"][row["mask"] == 1], doc.answer)
    assert row["segment_ids"].tolist() == [1] * length + [0] * (10 - length)


def test_another_document_is_other_data():
  """So that a run is not resumed with other rows."""
  states = []
  for fields in ({}, {"seed": 1}, {"part": "heldout"}, {"num_documents": 7}):
    loader = data.load(beds.BedData(CHAIN, seq_len=5, **fields), seed=0)
    states.append(loader.state()["data"])
    loader.close()
  assert len(set(states)) == 4


@pytest.mark.parametrize("bed", [CHAIN, SUMS], ids=["chain", "sums"])
def test_json_gives_the_same_data(bed):
  spec = beds.BedData(bed, 9, "heldout", seq_len=12, batch_size=3)
  tree = json.loads(json.dumps(config_json.encode(spec)))
  assert tree["bed"]["type"] == f"jdistill.beds.{type(bed).__name__}"
  assert config_json.decode(tree) == spec


@pytest.mark.parametrize(
  ("bed", "fields", "message"),
  [
    (CHAIN, {"num_documents": 0}, "num_documents: found 0"),
    (CHAIN, {"seq_len": 0}, "seq_len: found 0"),
    (CHAIN, {"seed": -1}, "seed: found -1"),
    (SUMS, {"seq_len": 8}, "raise seq_len to 9"),
  ],
)
def test_impossible_data_are_refused(bed, fields, message):
  with pytest.raises(types.UserError, match=message):
    beds.BedData(bed, **fields).open()


def test_a_document_that_does_not_fit_is_refused():
  documents = CHAIN.documents(0, 6, length=5)
  with pytest.raises(types.UserError, match="expected 2 to 4"):
    beds.documents.Rows(documents, 3)
