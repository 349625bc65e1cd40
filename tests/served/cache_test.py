# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A cache that a server fills is that of the teacher itself."""

import dataclasses
import json

import numpy as np
import pytest

from jdistill import (
  beds,
  cache_job,
  cached,
  cli,
  config,
  run,
  served,
  served_cache,
  types,
)
from jdistill.data import layout

CHAIN = beds.MarkovChain(vocab_size=9, order=1)
CONFIG = """
from jdistill import beds, config, methods

CHAIN = beds.MarkovChain(vocab_size=9, order=1)


def get_config():
  data = beds.BedData(CHAIN, num_documents=6, seq_len=8, batch_size=8)
  return config.Config(
    student=config.Fresh(beds.small_decoder(9, width=8, num_layers=1)),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.KD(),
    data=data,
    steps=1,
  )
"""


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "tiny.py"
  path.write_text(CONFIG)
  return path


def words(file, server, to, *more):
  return ["cache", str(file), "--to", str(to), "--format", "top_k:4",
          "--served", server.url, *more]  # fmt: skip


def test_the_same_cache_from_a_server(serve, file, tmp_path, capsys):
  server = serve(np.log(CHAIN.table[:9]))
  far, near = tmp_path / "far", tmp_path / "near"
  assert cli.main(words(file, server, far)) == 0
  shown = capsys.readouterr()
  figures = json.loads(shown.out.splitlines()[-1])
  assert (figures["rows"], figures["tokens"]) == (6, 48)
  assert "6 answers in" in shown.err
  settings = config.load(file)
  cache_job.cache(settings, near, cached.TopK(4))
  [rows] = settings.data.open().sources
  said = [cached.Said(cached.Cache(p), cached.TopK(4)) for p in (far, near)]
  for row in rows:
    found, expected = (one.row(row) for one in said)
    np.testing.assert_array_equal(found["ids"], expected["ids"])
    for name in ("log_probs", "log_rest"):
      np.testing.assert_allclose(
        np.exp(found[name]), np.exp(expected[name]), atol=1e-3
      )
  manifest = said[0].cache.manifest
  assert manifest["teacher"]["served"] == server.url
  # A run takes it for its teacher.
  learnt = config.override(
    settings, ["--teachers.teacher.cache", str(far), "--seed", "1"]
  )
  assert run.find_models(learnt).said["teacher"].cache.directory == far
  # Whatever is there is not asked again.
  assert cli.main(words(file, server, far)) == 0
  again = config.override(settings, ["--data.num-documents", "8"])
  assert len(again.data.open().sources[0]) == 8
  more = file.with_name("more.py")
  more.write_text(CONFIG.replace("num_documents=6", "num_documents=8"))
  assert cli.main(words(more, server, far)) == 0
  assert len(server.asked()) == 8
  # Answers are kept apart from the cache, which may be written anew.
  lost = tmp_path / "lost"
  (tmp_path / "far.answers").rename(tmp_path / "lost.answers")
  assert cli.main(words(more, server, lost)) == 0
  assert len(server.asked()) == 8
  assert len(cached.Cache(lost)) == 8


def test_rows_of_several_parts_and_evaluations(serve, file, tmp_path):
  server = serve(np.log(CHAIN.table[:9]))
  settings = config.load(file)
  held = dataclasses.replace(settings.data, part="heldout")
  settings = dataclasses.replace(settings, evals={"eval": held})
  with served.Client(served.Endpoint(server.url)) as client:
    found = served_cache.cache(
      settings, tmp_path / "to", cached.TopK(4), client, part_rows=4
    )
  assert found["rows"] == 12


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--format", "sampled:5"], "tells the likeliest ids and no more"),
    (["--dialect", "llama.cpp", "--key-from", "NOT_SET"], "NOT_SET"),
  ],
)
def test_what_cannot_be_served(serve, file, tmp_path, capsys, flags, said):
  server = serve(np.log(CHAIN.table[:9]))
  assert cli.main(words(file, server, tmp_path / "to", *flags)) == 2
  assert said in capsys.readouterr().err


def test_another_model_is_noticed(serve, file, tmp_path, capsys):
  larger = np.log(np.full((12, 12), 1 / 12))
  larger[:, -1] += 0.5
  server = serve(larger)
  assert cli.main(words(file, server, tmp_path / "to")) == 2
  assert "names the id 11, and the config's" in capsys.readouterr().err


def test_documents_of_a_row_are_read_apart():
  tokens = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9], np.int32)
  learn = np.array([1, 1, 0, 1, 1, 0, 1, 0, 0])
  row = layout.lay_out(tokens, [0, 4, 7], [3, 2, 1], 8, learn)
  found = served_cache.documents_of(row)
  texts = [text.tolist() for text, _ in found]
  counted = [places.tolist() for _, places in found]
  # The end of the second document and all of the third are not learnt.
  rows = row["mask"][row["segment_ids"] > 0]
  assert sum(map(sum, counted)) == int(rows.sum())
  assert texts == [[1, 2, 3, 4], [5, 6, 7]]
  assert counted == [[True, False, True], [False, True]]


def test_labels_are_no_text():
  with pytest.raises(types.UserError, match="a label each"):
    served_cache.documents_of({"inputs": np.zeros(3)})
