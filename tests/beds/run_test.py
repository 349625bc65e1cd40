# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run on a bed: its oracle is a teacher, its documents are the data."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import (
  beds,
  checkpoint,
  cli,
  config,
  data,
  metrics,
  pretrained,
  train,
  types,
)
from jdistill.run import to_batch

FILE = pathlib.Path(__file__).parents[2] / "configs/markov.py"
SMALL = [
  "--steps=8", "--eval-every=4", "--save-every=4", "--log-every=1",
  "--data.num-documents=64", "--data.seq-len=16",
  "--evals.eval.num-documents=24", "--evals.eval.seq-len=16",
  "--optimizer.lr=0.01",
]  # fmt: skip
SILENT = {"log": lambda line: None}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "markov"
  result = train.train(config.load(FILE, SMALL), workdir, **SILENT)
  return workdir, result


@pytest.mark.slow
def test_the_student_gets_closer_to_the_oracle(finished):
  found = finished[1]["evals"]["eval"]
  assert found["end"]["kl"] < 0.98 * found["start"]["kl"]
  assert found["teacher"]["kl"] == 0


def test_kl_is_the_exact_distance_to_the_oracle(finished):
  """To the first teacher, although the second one teaches."""
  workdir, result = finished
  spec = config.load(FILE, SMALL).evals["eval"]
  spec = dataclasses.replace(spec, batch_size=24, shuffle=False, epochs=1)
  [batch] = [to_batch(arrays) for arrays in data.load(spec, seed=0)]
  view = jax.tree.map(jnp.asarray, batch["student"])
  found = pretrained.find(str(workdir))
  logits = found.architecture.bind(found.params())(view).logits
  kl = spec.bed.golden_kl(logits, view.tokens, view.positions)
  assert result["evals"]["eval"]["end"]["kl"] == pytest.approx(
    float(kl.mean()), rel=1e-4
  )


@pytest.mark.slow
def test_a_stopped_run_goes_on(finished, tmp_path):
  """To where it would have been without the stop."""
  cfg = config.load(FILE, SMALL)
  train.train(dataclasses.replace(cfg, steps=4), tmp_path / "run", **SILENT)
  train.train(cfg, tmp_path / "run", **SILENT)
  last, whole = (metrics.read(d)[-1] for d in (tmp_path / "run", finished[0]))
  assert last["step"] == whole["step"] == 8
  assert last["eval/kl"] == whole["eval/kl"]


def test_evaluate_and_report_read_such_a_run(finished, capsys):
  workdir, result = finished
  assert cli.main(["evaluate", str(workdir)]) == 0
  [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert row["teacher"] == "MarkovChain"
  assert row["data"].startswith("24 heldout documents of MarkovChain(")
  assert row["kl"] == pytest.approx(result["evals"]["eval"]["end"]["kl"])
  assert cli.main(["report", str(workdir)]) == 0
  page = (workdir / "report.html").read_text()
  assert "64 train documents of MarkovChain(" in page
  assert "noise=0.2" in page
  assert cli.main(["report", str(workdir), "--format", "json"]) == 0
  assert '"eval"' in capsys.readouterr().out


def test_samples_show_ids(finished):
  path = finished[0] / "samples" / "eval-00000008.json"
  text = json.loads(path.read_text())["text"]
  assert len(text) == 16
  assert all(0 <= int(piece) < 16 for piece in text)


def test_an_oracle_needs_no_checkpoint():
  chain = beds.MarkovChain(vocab_size=4, order=1)
  found = pretrained.find(None, architecture=chain)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[1])
  params = found.params(
    dtype="bfloat16",
    shardings=lambda _, shapes: jax.tree.map(lambda _: place, shapes),
  )
  table = params["log_probs"]
  assert (table.dtype, table.sharding) == ("bfloat16", place)
  np.testing.assert_allclose(
    np.exp(table.astype("float32")), chain.table, rtol=0.05
  )
  with pytest.raises(types.UserError, match="neither `ref` nor `architecture`"):
    pretrained.find(None)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data": beds.BedData(beds.Arithmetic(terms=(30, 30)))}, "raise seq_len"),
    (
      {"data": beds.BedData(beds.MarkovChain(vocab_size=20, order=1))},
      "data: has 20 ids, but student knows only 16",
    ),
    (
      {
        "teachers": {
          "teacher": config.Teacher(
            architecture=beds.MarkovChain(vocab_size=17, order=1)
          )
        }
      },
      "MarkovChain tells 17 classes or ids apart and the student 16",
    ),
    ({"teachers": {"teacher": config.Teacher()}}, "neither `ref` nor"),
  ],
  ids=["too-long", "more-ids-than-known", "another-vocabulary", "no-teacher"],
)
def test_what_does_not_fit_is_refused(changes, message, tmp_path):
  cfg = dataclasses.replace(config.load(FILE, SMALL), **changes)
  with pytest.raises(types.UserError, match=message):
    train.train(cfg, tmp_path / "run", **SILENT)
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_whole_config_tells_proxy_and_truth_apart(tmp_path):
  """What the noisy teacher says is learnt, and its error with it."""
  cfg = config.load(FILE)
  result = train.train(cfg, tmp_path / "run", **SILENT)
  teacher = cfg.teachers["teacher"].architecture
  assert teacher is not None
  ends = [r for r in metrics.read(tmp_path / "run") if "forward_kl" in r]
  golden = result["evals"]["eval"]["end"]["kl"]
  assert golden > 1.5 * ends[-1]["forward_kl"]
  with checkpoint.Checkpoints(
    tmp_path / "run/checkpoints", read_only=True
  ) as found:
    assert found.steps()[-1] == cfg.steps
