# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of several stages: one directory, and every stage a run in it."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jdistill import (
  beds,
  checkpoint,
  cli,
  config,
  data,
  describe,
  evaluate,
  methods,
  metrics,
  optim,
  pretrained,
  refs,
  report,
  train,
  types,
)

CHAIN = beds.MarkovChain(vocab_size=8, order=1, concentration=0.3)
TEXT = beds.BedData(CHAIN, num_documents=64, seq_len=16, batch_size=8)


def table(seed):
  """A student that is quick to compile: another chain, whose table moves."""
  return config.Fresh(dataclasses.replace(CHAIN, seed=seed))


def one(**changes):
  base = config.Config(
    student=table(1),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.KD(),
    data=TEXT,
    evals={"eval": dataclasses.replace(TEXT, part="heldout")},
    optimizer=optim.AdamW(lr=0.05),
    steps=4,
    log_every=1,
    eval_every=2,
    save_every=2,
  )
  return dataclasses.replace(base, **changes)


def teacher(ref):
  return {"teacher": config.Teacher(ref)}


def two(first=None, **second):
  """An assistant learns from the chain, and another student from it."""
  changes = {"student": table(2), "teachers": teacher("stage:assistant")}
  return config.Stages(
    {"assistant": one(**(first or {})), "small": one(**(changes | second))}
  )


def go(stages, workdir, log=lambda line: None, **options):
  return train.train(stages, workdir, log=log, **options)


def params(ref):
  return pretrained.find(str(ref)).params()


def same(one, two):
  jax.tree.map(np.testing.assert_array_equal, params(one), params(two))


def rows(workdir):
  return [
    (row["step"], row.get("loss"), row.get("eval/kl"))
    for row in metrics.read(workdir)
  ]


@pytest.fixture(autouse=True, scope="module")
def _caches(caches):
  """The runs here are much alike."""


@pytest.fixture(scope="module")
def alive():
  """How many arrays there were when a line was said."""
  return {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, alive):
  workdir = tmp_path_factory.mktemp("whole") / "run"

  def log(line):
    alive[line] = len(jax.live_arrays())

  return workdir, go(two(), workdir, log=log)


@pytest.fixture
def copy(finished, tmp_path):
  return shutil.copytree(finished[0], tmp_path / "copy")


def test_the_last_stage_stands_for_the_run(finished):
  workdir, result = finished
  assert list(result["stages"]) == ["assistant", "small"]
  assert result["evals"] == result["stages"]["small"]["evals"]
  for name, found in result["stages"].items():
    held = json.loads((workdir / name / "result.json").read_text())
    assert held == found
  same(workdir, workdir / "small")
  same(f"{workdir}@2", f"{workdir}/small@2")
  assert describe.model(str(workdir))["path"] == str(workdir / "small")
  assert report.write(workdir) == workdir / "small/report.html"


def test_the_teacher_is_the_student_of_the_stage_before(finished):
  """As a teacher it predicts held-out text as it did in the end."""
  workdir, result = finished
  before, after = (s["evals"]["eval"] for s in result["stages"].values())
  assert after["teacher"]["ppl"] == pytest.approx(before["end"]["ppl"])
  assert after["end"]["kl"] < after["start"]["kl"]
  [row] = evaluate.evaluate(str(workdir))
  assert row["teacher"] == "stage:assistant"
  assert row["kl"] == pytest.approx(after["end"]["kl"], rel=1e-5)


def test_no_file_of_a_stage_says_where_the_run_lies(finished):
  workdir, _ = finished
  for name in ("config.json", "models.json", "student.json"):
    assert str(workdir) not in (workdir / "small" / name).read_text()


def test_what_is_selected_is_what_is_referred_to(tmp_path):
  """A rate that ends far off: the best checkpoint is not the last."""
  wild = {"optimizer": optim.AdamW(lr=3.0), "select": "eval/kl", "keep": 1}
  wild |= {"eval_every": 1, "save_every": 1}
  later = {"plain": "", "last": "@last", "best": "@best"}
  stages = {
    name: one(teachers=teacher(f"stage:wild{which}"), steps=1)
    for name, which in later.items()
  }
  result = go(config.Stages({"wild": one(**wild), **stages}), tmp_path / "run")
  kls = [row[2] for row in rows(tmp_path / "run/wild") if row[2] is not None]
  assert min(kls[1:]) < kls[-1]
  ppl = {
    name: result["stages"][name]["evals"]["eval"]["teacher"]["ppl"]
    for name in later
  }
  assert ppl["plain"] == ppl["best"] < ppl["last"]


def stopped_in(stages, workdir, name, step):
  """Runs until it is told to stop at a step of a stage."""
  asked = train._Loop._told_to_stop

  def ask(self, now):
    if self.workdir.name == name and now == step:
      self.stop.append(143)
    return asked(self, now)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train._Loop, "_told_to_stop", ask)
    with pytest.raises(train.Stopped) as stop:
      go(stages, workdir)
  assert stop.value.code == 143


@pytest.mark.parametrize(("name", "step"), [("assistant", 1), ("small", 3)])
def test_stopped_moved_and_resumed_is_the_same(finished, tmp_path, name, step):
  workdir, result = finished
  stopped_in(two(), tmp_path / "a", name, step)
  moved = shutil.move(tmp_path / "a", tmp_path / "b")
  lines = []
  assert go(two(), moved, log=lines.append) == result
  assert (f"resuming at step {step} of 4") in lines
  for stage in result["stages"]:
    same(moved / stage, workdir / stage)
    assert rows(moved / stage) == rows(workdir / stage)


def test_told_to_stop_when_a_stage_is_as_good_as_finished(tmp_path):
  """Between its last step and its end: the next one does not start."""
  ended = train._Loop._finish

  def finish(self, state):
    self.stop.append(143)
    return ended(self, state)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train._Loop, "_finish", finish)
    with pytest.raises(train.Stopped):
      go(two(), tmp_path / "run")
  assert (tmp_path / "run/assistant/result.json").is_file()
  assert not (tmp_path / "run/small").exists()


def test_a_finished_stage_is_passed_over(copy, finished):
  """Neither its teacher nor its checkpoint is asked for."""
  shutil.rmtree(copy / "small")
  before = {p: p.stat().st_mtime_ns for p in (copy / "assistant").rglob("*")}
  first = {"teachers": {"teacher": config.Teacher(architecture=CHAIN)}}
  loaded = []
  load = pretrained.Found.params
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      pretrained.Found,
      "params",
      lambda self, **more: loaded.append(self.ref) or load(self, **more),
    )
    assert go(two(first | {"log_every": 2}), copy) == finished[1]
  assert loaded == ["stage:assistant"]
  same(copy, finished[0])
  assert before == {
    p: p.stat().st_mtime_ns for p in (copy / "assistant").rglob("*")
  }


def test_nothing_of_a_stage_stays_in_memory(finished, alive):
  assert alive["stage small"] <= alive["stage assistant"] < max(alive.values())


def test_a_stage_may_be_added_or_prolonged(copy, finished):
  more = config.Stages(
    two(steps=5).stages
    | {"third": one(student=config.Pretrained("stage:small"))}
  )
  result = go(more, copy)
  assert {k: v["steps"] for k, v in result["stages"].items()} == {
    "assistant": 4,
    "small": 5,
    "third": 4,
  }
  assert result["stages"]["assistant"] == finished[1]["stages"]["assistant"]
  third = result["evals"]["eval"]["start"]["ppl"]
  small = result["stages"]["small"]["evals"]["eval"]["end"]["ppl"]
  assert third == pytest.approx(small)


@pytest.mark.parametrize(
  ("stages", "said"),
  [
    (two({"seed": 1}), "assistant holds a run of another config.*seed: 0 -> 1"),
    (two({"steps": 5}), "steps: 4 -> 5, but stage small has begun"),
    (
      config.Stages({"assistant": one(), "other": one()}),
      "first stages are assistant, small, and those of this",
    ),
    (one(), "run of several stages, and this config is of one"),
  ],
)
def test_another_config_is_refused(copy, stages, said):
  before = sorted(copy.rglob("*"))
  with pytest.raises(types.UserError, match=said):
    go(stages, copy)
  assert sorted(copy.rglob("*")) == before


def test_a_run_of_one_stage_is_no_run_of_several(copy):
  with pytest.raises(types.UserError, match="of one stage, and this config is"):
    go(two(), copy / "small")


def test_never(copy):
  with pytest.raises(types.UserError, match="--resume is never"):
    go(two(), copy, resume="never")


@pytest.mark.parametrize(
  ("second", "said"),
  [
    ({"teachers": {}}, "stage small: method KD needs a teacher"),
    (
      {"data": dataclasses.replace(TEXT, batch_size=7)},
      "stage small: data.bat",
    ),
    (
      {"student": config.Fresh(dataclasses.replace(CHAIN, vocab_size=4))},
      "stage small: data: has 8 ids",
    ),
    (
      {"student": config.Cut(1, "stage:assistant")},
      "stage small: student: .*no layers to cut",
    ),
  ],
)
def test_a_later_stage_is_checked_before_the_first_starts(
  tmp_path, second, said
):
  with pytest.raises(types.UserError, match=said):
    go(two(**second), tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ref", ["stage:assistant", "stage:assistant@best"])
def test_outside_a_run_a_stage_needs_its_directory(ref):
  with pytest.raises(types.UserError, match="write RUN/STAGE"):
    refs.locate(ref)


def test_a_run_whose_last_stage_has_not_begun(copy):
  shutil.rmtree(copy / "small")
  with pytest.raises(types.UserError, match="small, has no checkpoint yet"):
    refs.locate(str(copy))
  assert refs.locate(str(copy / "assistant")).selector == "last"


def test_names_in_a_run_that_lead_out_of_it(copy):
  tree = json.loads((copy / "config.json").read_text())
  tree["stages"] = {"../outside": tree["stages"]["small"]}
  (copy / "config.json").write_text(json.dumps(tree))
  with pytest.raises(types.UserError, match="not the name of a stage"):
    refs.locate(str(copy))


BODY = """
  small = dataclasses.replace(
    cfg,
    student=config.Cut((1,), ref="stage:assistant"),
    teachers={"teacher": config.Teacher("stage:assistant")},
    tokenizer="stage:assistant",
    samples=("The statement",),
  )
  cfg = config.Stages({"assistant": cfg, "small": small})
"""


@pytest.fixture
def text(world, tmp_path):
  """A config file of two stages that learn from text."""
  return world.file(tmp_path, BODY.strip())


def test_texts_of_later_stages_are_opened_first(text, tmp_path):
  stages = config.load(text)
  later = stages.stages["small"]
  missing = data.TextData((data.Source("jsonl:no/where.jsonl"),), seq_len=16)
  changed = dataclasses.replace(later, data=missing)
  with pytest.raises(types.UserError, match=r"stage small: .*no/where"):
    go(config.Stages(stages.stages | {"small": changed}), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def until_step(workdir, step, process):
  while not any(r["step"] >= step for r in metrics.read(workdir)):
    assert process.poll() is None
    time.sleep(0.2)


@pytest.mark.slow
def test_the_command_stops_and_goes_on(text, tmp_path, capsys):
  workdir, other = tmp_path / "run", tmp_path / "other"
  words = [*("train", str(text)), *("--small.save-every", "100000")]
  command = [sys.executable, "-m", "jdistill.cli", *words, "--workdir"]
  flags = ["--small.steps", "100000", "--small.eval-every", "100000"]
  process = subprocess.Popen([*command, str(workdir), *flags])
  until_step(workdir / "small", 3, process)
  process.send_signal(signal.SIGTERM)
  assert process.wait(120) == 143
  with checkpoint.Checkpoints(
    workdir / "small/checkpoints", read_only=True
  ) as saved:
    until = saved.steps()[-1] + 2
  flags = ["--small.steps", str(until), "--small.eval-every", "100000"]
  capsys.readouterr()
  for directory in (workdir, other):
    assert cli.main([*words, "--workdir", str(directory), *flags]) == 0
    shown = capsys.readouterr().out
    for stage in ("assistant", "small"):
      assert f"stage {stage}" in shown
      page = (directory / stage / "report.html").read_text()
      assert "Held-out results" in page
  for stage in ("assistant", "small"):
    same(workdir / stage, other / stage)
    assert rows(workdir / stage) == rows(other / stage)
  assert cli.main(["generate", str(workdir), "--prompt", "The"]) == 0
  assert cli.main(["export", str(workdir), "--to", str(tmp_path / "hf")]) == 0
  card = (tmp_path / "hf/README.md").read_text()
  assert "the student of stage `assistant`" in card
  assert str(tmp_path) not in card
