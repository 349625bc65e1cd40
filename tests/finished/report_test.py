# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import html.parser
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
import rich.console

from jdistill import report, types
from jdistill.report import page, plots, single

VOID = {"meta", "br", "hr", "use", "path", "line", "img"}


class Checked(html.parser.HTMLParser):
  """Every element closed, nothing loaded from elsewhere; the text kept."""

  def __init__(self, text):
    super().__init__()
    self.open, self.said, self.ids = [], [], []
    self.feed(text)
    assert self.open == []
    assert len(self.ids) == len(set(self.ids))

  def handle_starttag(self, tag, attrs):
    self.check(attrs)
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.check(attrs)

  def handle_endtag(self, tag):
    if tag not in VOID:
      assert self.open.pop() == tag

  def handle_data(self, data):
    self.said.append(data)

  def check(self, attrs):
    for name, value in attrs:
      if name == "id":
        self.ids.append(value)
      if name in ("src", "href", "xlink:href"):
        assert value.startswith("#"), (name, value)

  @property
  def text(self):
    return " ".join(" ".join(self.said).split())


def read(path):
  text = path.read_text()
  assert "@import" not in text
  assert "<script" not in text
  assert not re.search(r"url\((?!#)", text)
  return Checked(text)


@pytest.fixture
def finished(run, tmp_path):
  """A copy of the run that a test may change."""
  shutil.copytree(run, tmp_path / "mine")
  return tmp_path / "mine"


def test_a_page_says_what_was_trained_and_what_came_out(finished):
  path = report.write(finished)
  assert path == finished / "report.html"
  said = read(path).text
  result = json.loads((finished / "result.json").read_text())
  for name in ("eval", "other"):
    for stage in ("start", "end"):
      assert f"{result['evals'][name][stage]['kl']:.3f}" in said
  assert "keeps 2 of 4 layers: 0, 3" in said
  assert "licence mit" in said
  assert "KD(divergence=forward_kl, tau=1.0)" in said
  for label in (
    "KL to teacher (nats per token)",
    "perplexity (per token)",
    "position in the row (tokens)",
    "throughput (tokens per second)",
    "training step",
  ):
    assert label in said
  assert "At the start, step 0" in said
  assert "At the end, step 4" in said


def test_continuations_are_shown_and_nothing_in_a_run_becomes_markup(finished):
  rows = [{"prompt": "<script>alert(1)</script>", "teacher": "a & b",
           "end": "<b>c"}]  # fmt: skip
  (finished / "samples" / "continuations.json").write_text(json.dumps(rows))
  said = read(report.write(finished)).text
  assert "<script>alert(1)</script>" in said
  assert "a & b" in said
  assert "student at start" in said  # in the table


def test_the_command_is_shown_where_it_is_known(finished):
  (finished / "command.txt").unlink()
  assert "Command" not in read(report.write(finished)).text
  (finished / "command.txt").write_text("jdistill train x.py\n")
  assert "jdistill train x.py" in read(report.write(finished)).text


def test_a_run_that_has_just_begun(finished):
  (finished / "metrics.jsonl").unlink()
  shutil.rmtree(finished / "samples")
  said = read(report.write(finished)).text
  assert "step 0 of 4" in said
  assert "Held-out results" not in said


def test_a_teacher_that_is_gone(finished):
  config = json.loads((finished / "config.json").read_text())
  config["teachers"]["teacher"]["ref"] = "/nowhere/teacher"
  (finished / "config.json").write_text(json.dumps(config))
  assert "not to be found here" in read(report.write(finished)).text


def test_several_runs_on_one_page(finished, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(finished, tmp_path / "faster")
  config = json.loads((finished / "config.json").read_text())
  config["optimizer"]["lr"]["peak"] = 0.25
  (tmp_path / "faster" / "config.json").write_text(json.dumps(config))
  path = report.write(finished, tmp_path / "faster")
  assert path.resolve() == tmp_path / "report.html"
  said = read(path).text
  assert "2 runs compared" in said
  assert "optimizer.lr.peak 0.01 0.25" in said


def test_runs_of_one_name_are_told_apart(finished, tmp_path):
  (tmp_path / "again").mkdir()
  shutil.copytree(finished, tmp_path / "again" / "mine")
  other = tmp_path / "again" / "mine"
  said = read(report.write(finished, other, to=tmp_path / "x.html")).text
  assert str(other) in said
  assert "configs are the same" in said


def test_no_run(tmp_path):
  with pytest.raises(types.UserError, match="no run directory"):
    report.write(tmp_path)


def test_table_for_terminals():
  row = {"kl": 4.5, "ppl": 100.0, "agreement": 0.25, "bits_per_byte": 2.0}
  teacher = {"kl": 0.0, "ppl": 10.0, "agreement": 1.0}
  stages = {"teacher": teacher, "start": row | {"ppl": 2.4e6}, "end": row}
  out = io.StringIO()
  console = rich.console.Console(file=out, width=100)
  console.print(report.table({"steps": 5, "evals": {"eval": stages}}))
  lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
  # Bits go with the logarithm of the perplexity: half of the student's here.
  assert math.log(10) / math.log(100) * 2.0 == pytest.approx(1.0)
  assert "eval teacher 0.000 10.0 100.0 % 1.000" in lines
  assert "student at start 4.500 2.40e+06 25.0 % 2.000" in lines
  assert "student at end 4.500 100.0 25.0 % 2.000" in lines


def test_heat_belongs_to_the_token_that_was_predicted():
  sample = {
    "text": ["a", "b", "c", "d", "e", "pad", "pad"],
    "kl": [1.0, 2.0, 9.0, 4.0, 9.0, 9.0, 9.0],
    "mask": [1, 1, 0, 1, 0, 0, 0],  # "d" begins a second document
  }
  tokens, values = single._heat_pieces(sample)
  assert tokens == ["a", "b", "c", "d", "e"]
  assert values == [None, 1.0, 2.0, None, 4.0]
  made = page.heat(tokens, values, full=4.0)
  assert made.count("<hr>") == 1
  assert '--a:0.75" title="4.00 nats">e<' in made
  assert '--a:0.38" title="1.00 nats">b<' in made


def test_a_text_without_targets_has_no_heat():
  sample = {"text": ["a"], "kl": [0.0], "mask": [0.0]}
  assert single._heat_pieces(sample)[1] == [None]


def test_smooth_against_a_loop():
  y = [1.0, np.nan, 3.0, 5.0, 2.0]
  expected = [np.nanmean(y[max(0, i - 1) : i + 2]) for i in range(5)]
  np.testing.assert_allclose(plots.smooth(y, 3), expected)
  assert np.isnan(plots.smooth([np.nan, np.nan], 1)).all()
  assert len(plots.smooth([1.0], 9)) == 1


@pytest.mark.parametrize("log_y", [False, True])
def test_plots_take_their_colours_from_the_page(log_y):
  curve = plots.Line("a<$b$", [0, 1, 2], [3e6, np.nan, 2.0], 1)
  svg = plots.lines(
    [curve, plots.Line("two", [0], [1.0])],
    x_label="step",
    y_label="loss (nats)",
    log_y=log_y,
    levels=[("teacher", 1.5)],
  )
  assert "var(--c1)" in svg
  assert "var(--ink)" in svg
  assert not re.search("#0102", svg)
  said = Checked(svg).text
  assert "a<$b$" in said
  assert ("1M" in said) == log_y


def test_runs_that_differ_in_their_seed_are_one_row(finished, tmp_path):
  shutil.copytree(finished, tmp_path / "again")
  config = json.loads((finished / "config.json").read_text())
  (tmp_path / "again" / "config.json").write_text(
    json.dumps(config | {"seed": 1})
  )
  rows = [json.loads(r) for r in (finished / "metrics.jsonl").open()]
  moved = [r | {"eval/kl": r["eval/kl"] + 0.2} if "eval/kl" in r else r
           for r in rows]  # fmt: skip
  (tmp_path / "again" / "metrics.jsonl").write_text(
    "".join(json.dumps(r) + "\n" for r in moved)
  )
  shutil.copytree(finished, tmp_path / "faster")
  config["optimizer"]["lr"]["peak"] = 0.25
  (tmp_path / "faster" / "config.json").write_text(json.dumps(config))
  runs = (finished, tmp_path / "again", tmp_path / "faster")
  found = json.loads(report.summary(*runs, format="json"))
  both, one = found["rows"]
  last = rows[-1]["eval/kl"]
  assert (both["seeds"], one["seeds"]) == ([0, 1], [0])
  kl = both["evals"]["eval"]["kl"]
  assert kl["mean"] == pytest.approx(last + 0.1)
  assert kl["std"] == pytest.approx(0.2 / 2**0.5)
  assert one["evals"]["eval"]["kl"] == {"mean": last, "std": None}
  assert both["tokens"] == 4 * 32 * 8
  assert both["cpu_seconds"] > 0
  text = report.summary(*runs)
  assert f"| {last + 0.1:.3f} ± 0.141 |" in text
  assert text.count("| teacher |") == 1
  assert text.count("tiny.py --workdir") == 3
  (tmp_path / "again" / "result.json").unlink()
  assert "(unfinished) | 2 |" in report.summary(*runs)
