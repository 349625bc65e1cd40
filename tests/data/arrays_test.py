# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import gzip

import numpy as np
import pytest

from jdistill import data, types


@pytest.fixture
def table(tmp_path):
  """40 rows of 4 numbers, sorted by a class of 4."""
  rng = np.random.default_rng(0)
  inputs = rng.integers(0, 256, (40, 4))
  labels = np.repeat(np.arange(4), 10)
  lines = [
    ",".join(map(str, [*row, label]))
    for row, label in zip(inputs, labels, strict=True)
  ]
  path = tmp_path / "digits.csv.gz"
  path.write_bytes(gzip.compress("\n".join(lines).encode()))
  return path, inputs, labels


def rows_of(config):
  loader = data.load(config, seed=0)
  batches = list(loader)
  counted = np.concatenate([b["mask"] for b in batches]) > 0
  return loader, {
    k: np.concatenate([b[k] for b in batches])[counted] for k in batches[0]
  }


def config(path, **changes):
  return data.ArrayData(
    **{
      "ref": f"csv:{path}",
      "label": "-1",
      "shape": (2, 2, 1),
      "scale": 1 / 255,
      "batch_size": 16,
      "epochs": 1,
    }
    | changes
  )


def test_a_table_of_numbers_gives_images(table):
  path, inputs, labels = table
  loader, rows = rows_of(config(path, shuffle=False))
  assert (loader.num_rows, loader.num_batches) == (40, 3)
  assert rows["inputs"].shape == (40, 2, 2, 1)
  assert rows["inputs"].dtype == np.float32
  np.testing.assert_allclose(
    rows["inputs"].reshape(40, 4), inputs / 255, rtol=1e-6
  )
  assert rows["targets"].tolist() == labels.tolist()
  assert rows["targets"].dtype == np.int32
  assert rows["example_id"].tolist() == list(range(40))


def test_splits_share_no_row_and_mix_the_classes(table):
  path, inputs, _ = table
  parts = [
    rows_of(config(path, split=split))[1] for split in ("[:75%]", "[75%:]")
  ]
  assert [len(p["targets"]) for p in parts] == [30, 10]
  both = np.concatenate([p["inputs"].reshape(-1, 4) for p in parts])
  scaled = inputs.astype(np.float32) * np.float32(1 / 255)
  assert sorted(map(tuple, both)) == sorted(map(tuple, scaled))
  # Stored by class, the last quarter would be of one class.
  assert len(set(parts[1]["targets"].tolist())) > 1


def test_a_table_with_a_header(tmp_path):
  path = tmp_path / "iris.csv"
  path.write_text("a,kind,b\n1,0,2.5\n3,1,4.5\n")
  _, rows = rows_of(
    config(path, label="kind", shape=(), scale=2.0, shuffle=False)
  )
  assert rows["inputs"].tolist() == [[2, 5], [6, 9]]
  assert rows["targets"].tolist() == [0, 1]


def test_an_archive_of_arrays(tmp_path):
  images = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
  np.savez(tmp_path / "d.npz", image=images, label=[2, 0, 1])
  _, rows = rows_of(
    data.ArrayData(f"npz:{tmp_path / 'd.npz'}", shuffle=False, epochs=1)
  )
  np.testing.assert_array_equal(rows["inputs"], images)
  assert rows["targets"].tolist() == [2, 0, 1]


def test_arrays_of_the_caller():
  inputs = np.arange(10, dtype=np.float32).reshape(5, 2)
  loader = data.from_arrays(inputs, np.arange(5), batch_size=2, epochs=1)
  batches = list(loader)
  assert [b["mask"].tolist() for b in batches] == [[1, 1], [1, 1], [1, 0]]
  for batch in batches:
    for x, y, counts in zip(
      batch["inputs"], batch["targets"], batch["mask"], strict=True
    ):
      assert x.tolist() == ([2.0 * y, 2.0 * y + 1] if counts else [0, 0])


def test_pickled_arrays_are_not_read(tmp_path):
  np.savez(tmp_path / "d.npz", image=np.array([{}, {}], object), label=[0, 1])
  with pytest.raises(types.UserError, match="of plain arrays"):
    rows_of(data.ArrayData(f"npz:{tmp_path / 'd.npz'}", epochs=1))


@pytest.mark.parametrize(
  ("text", "changes", "message"),
  [
    ("1,2,0\n", {"label": "kind"}, "has no header, so data.label must be the"),
    ("1,2,0\n", {"label": "7"}, "one of its 3 columns"),
    ("a,b\n1,0\n", {"label": "c"}, "no field 'c'; found a, b"),
    ("a,b\nx,0\n", {"label": "b"}, "not all inputs are numbers"),
    ("1,2,0.5\n", {"shape": (2,)}, r"row 0: label .*expected a whole number"),
    ("1,2,0\n", {"shape": (3,)}, r"row 0: 2 values .* shape \(3,\)"),
    ("1,2,0\n", {"split": "[5:]"}, "is empty: there are 1 rows"),
    ("1,2,0\n", {"split": "test"}, "only tfds: has named splits"),
    ("1,2,0\n1,2\n", {}, "Expected 3 columns, got 2"),
  ],
)
def test_faults_name_the_place_and_what_was_found(
  tmp_path, text, changes, message
):
  path = tmp_path / "d.csv"
  path.write_text(text)
  with pytest.raises(types.UserError, match=message):
    rows_of(config(path, **changes))
