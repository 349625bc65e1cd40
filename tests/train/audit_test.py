# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Audits during a run: what they add to its rows, and what they say."""

import dataclasses
import json

import pytest

from jdistill import audit, beds, config, methods, metrics, report, train, types
from jdistill.beds import trial

CHAIN = beds.MarkovChain(vocab_size=4)
DATA = beds.BedData(CHAIN, num_documents=16, seq_len=8, batch_size=8)
TINY = config.Config(
  student=config.Fresh(trial.small_decoder(4, width=8, num_layers=1)),
  teachers={
    "teacher": config.Teacher(architecture=beds.MarkovChain(4, seed=3)),
    "oracle": config.Teacher(architecture=CHAIN),
  },
  method=methods.KD(),
  data=DATA,
  evals={"eval": dataclasses.replace(DATA, part="heldout")},
  steps=4,
  eval_every=2,
  eval_at=(1,),
  save_every=4,
)


@dataclasses.dataclass(frozen=True)
class Late(audit.Audit):
  """Flags a run from step 2 on."""

  def metrics(self):
    return ("eval/kl",)

  def look(self, rows, steps):
    at, values = audit.series(rows, "eval/kl")
    last = int(at[-1])
    said = f"step {last} of {steps}, {len(values)} values"
    return audit.Finding(last >= 2, said, {"last": float(last)}, {"at": last})


def go(workdir, **changes):
  lines = []
  cfg = dataclasses.replace(TINY, **changes)
  return train.train(cfg, workdir, log=lines.append), lines


@pytest.mark.slow
def test_rows_warnings_and_results_over_a_restart(tmp_path):
  audits = {"late": Late()}
  result, lines = go(tmp_path / "run", audits=audits)
  told = [r for r in metrics.read(tmp_path / "run") if "eval/kl" in r]
  assert [r["step"] for r in told] == [0, 1, 2, 4]
  assert [r["late/flagged"] for r in told] == [0.0, 0.0, 1.0, 1.0]
  assert [r["late/last"] for r in told] == [0.0, 1.0, 2.0, 4.0]
  warnings = [line for line in lines if line.startswith("warning")]
  assert warnings == ["warning: audit late: step 2 of 4, 3 values"]
  expected = {"flagged": True, "said": "step 4 of 4, 4 values", "at": 4}
  assert result["audits"] == {"late": expected}
  stored = json.loads((tmp_path / "run" / "result.json").read_text())
  assert stored["audits"] == result["audits"]

  result, lines = go(tmp_path / "run", audits=audits, steps=6)
  assert not [line for line in lines if line.startswith("warning")]
  assert result["audits"]["late"]["said"] == "step 6 of 6, 5 values"


def test_teacher_hacking_in_a_run_and_its_report(tmp_path):
  one = audit.TeacherHacking(golden="eval/kl_oracle", window=(0.0, 0.5),
                             least=3)  # fmt: skip
  run = tmp_path / "run"
  result, _ = go(run, audits={"hacking": one}, steps=9, eval_every=1)
  found = result["audits"]["hacking"]
  assert found["num"] == 9
  assert found["line"]["num"] == 3
  assert found["golden"]["end"] == pytest.approx(
    metrics.read(run)[-1]["eval/kl_oracle"]
  )
  page = report.write(run).read_text()
  assert "follow a power law?" in page
  assert "golden: eval/kl_oracle" in page
  assert found["said"].replace("^", "^") in page
  both = report.write(run, run, to=tmp_path / "both.html").read_text()
  assert "Audit: hacking" in both


@pytest.mark.parametrize(
  ("audits", "said"),
  [
    ({"eval": audit.TeacherHacking()}, "audits.eval: .*something else"),
    ({"hacking": audit.TeacherHacking("test/kl")}, "'test/kl'; expected"),
    ({"hacking": audit.TeacherHacking("eval/kll")}, "found .*eval/accuracy"),
  ],
)
def test_metrics_that_nobody_gives(tmp_path, audits, said):
  with pytest.raises(types.UserError, match=said):
    go(tmp_path / "run", audits=audits)
