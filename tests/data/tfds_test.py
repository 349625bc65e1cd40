# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""TFDS datasets, written here as ArrayRecord files without TensorFlow."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jdistill import data, types
from jdistill.data import corpus


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Writes a dataset of one split, train, and gives its reference."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

  def written(features, examples):
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      VERSION = tfds.core.Version("1.0.0")

      def _info(self):
        return tfds.core.DatasetInfo(
          builder=self, features=tfds.features.FeaturesDict(features)
        )

      def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

      def _generate_examples(self):
        yield from enumerate(examples)

    # TFDS looks for files beside the code of a builder in a package, and that
    # search wants a library that its own installation does not bring.
    Tiny.__module__ = "tiny"
    builder = Tiny(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    return "tfds:tiny"

  return written


def test_text_is_decoded_and_split(write):
  texts = [f"text {i} \u00e9" for i in range(10)]
  ref = write({"body": tfds.features.Text()}, [{"body": t} for t in texts])
  opened = [
    corpus.open_corpus(corpus.Source(ref, field="body", split=split))
    for split in ("train[:70%]", "[70%:]")
  ]
  found = [[part[i] for i in range(len(part))] for part in opened]
  assert [len(part) for part in found] == [7, 3]
  # TFDS shuffles by a hash of the keys when it writes.
  assert sorted(found[0] + found[1]) == sorted(texts)
  assert opened[0].identity != opened[1].identity


def test_rows_of_tokens_are_packed(write):
  rows = [list(range(10 * i + 1, 10 * i + 2 + i)) for i in range(1, 9)]
  ref = write(
    {"tokens": tfds.features.Sequence(np.int32)},
    [{"tokens": row} for row in rows],
  )
  config = data.TextData(
    (data.Source(ref, format="tokens"),),
    seq_len=16,
    batch_size=2,
    epochs=1,
  )
  pairs = [
    pair
    for batch in data.load(config, seed=0)
    for pair in zip(
      batch["tokens"][batch["mask"] > 0],
      batch["targets"][batch["mask"] > 0],
      strict=True,
    )
  ]
  assert sorted(pairs) == [(t, t + 1) for row in rows for t in row[:-1]]


def test_chats_are_read_from_sequences_of_dicts(write):
  messages = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
  ]
  text = tfds.features.Text()
  ref = write(
    {"messages": tfds.features.Sequence({"role": text, "content": text})},
    [{"messages": messages}],
  )
  opened = corpus.open_corpus(corpus.Source(ref, format="chat"))
  assert opened[0] == messages


def test_images_with_labels(write):
  ref = write(
    {
      "image": tfds.features.Tensor(shape=(2, 2, 1), dtype=np.uint8),
      "label": tfds.features.ClassLabel(num_classes=3),
    },
    [
      {"image": np.full((2, 2, 1), 50 * i, np.uint8), "label": i}
      for i in range(3)
    ],
  )
  config = data.ArrayData(ref, batch_size=3, scale=0.1, epochs=1)
  (batch,) = data.load(config, seed=0)
  assert batch["inputs"].shape == (3, 2, 2, 1)
  np.testing.assert_allclose(batch["inputs"][:, 0, 0, 0], 5 * batch["targets"])
  assert sorted(batch["targets"].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
  ("split", "message"),
  [
    ("test", "no split 'test'; it has train"),
    ("train[9:]", r"is empty: there are 1 documents"),
  ],
)
def test_splits_that_are_not_there(write, split, message):
  ref = write({"text": tfds.features.Text()}, [{"text": "a b"}])
  with pytest.raises(types.UserError, match=message):
    corpus.open_corpus(corpus.Source(ref, split=split))


def test_a_name_that_tfds_does_not_know():
  with pytest.raises(types.UserError, match=r"tfds:no_such_set: no such data"):
    corpus.open_corpus(corpus.Source("tfds:no_such_set"))
