# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jdistill.data import store

DOCUMENTS = [
  (np.array([1, 2, 3], np.int32), None),
  (np.zeros(0, np.int32), None),
  (np.array([4, 5], np.int32), np.array([0, 1], np.uint8)),
]


def once(documents):
  """The documents, and a list that grows each time they are read."""
  reads = []

  def read():
    reads.append(1)
    yield from documents

  return read, reads


def check(found):
  assert found.tokens.tolist() == [1, 2, 3, 4, 5]
  assert found.offsets.tolist() == [0, 3, 3, 5]
  assert found.learn.tolist() == [1, 1, 1, 0, 1]
  assert len(found) == 3


@pytest.mark.parametrize("on_disk", [True, False])
def test_documents_come_back(tmp_path, on_disk):
  check(store.cached(iter(DOCUMENTS), "k", tmp_path if on_disk else None))


def test_the_second_start_reads_no_document(tmp_path):
  read, reads = once(DOCUMENTS)
  check(store.cached(read(), "k", tmp_path))
  check(store.cached(read(), "k", tmp_path))
  assert len(reads) == 1
  assert [p.name for p in tmp_path.iterdir()] == ["k"]


def test_all_learnt_needs_no_mask(tmp_path):
  assert store.cached(iter(DOCUMENTS[:2]), "k", tmp_path).learn is None
  assert store.cached(iter(DOCUMENTS[:2]), "k", None).learn is None


@pytest.mark.parametrize("name", ["tokens", "offsets", "learn", "summary.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_entries_are_made_anew(tmp_path, name, damage):
  store.cached(iter(DOCUMENTS), "k", tmp_path)
  path = tmp_path / "k" / name
  content = path.read_bytes()
  if damage == "cut":
    path.write_bytes(content[:-4])
  elif damage == "changed":
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
  else:
    path.unlink()
  read, reads = once(DOCUMENTS)
  check(store.cached(read(), "k", tmp_path))
  assert len(reads) == 1
  assert [p.name for p in tmp_path.iterdir()] == ["k"]


def test_a_fault_while_writing_leaves_nothing_behind(tmp_path):
  def broken():
    yield DOCUMENTS[0]
    raise RuntimeError("no more")

  with pytest.raises(RuntimeError, match="no more"):
    store.cached(broken(), "k", tmp_path)
  assert list(tmp_path.iterdir()) == []
  check(store.cached(iter(DOCUMENTS), "k", tmp_path))
