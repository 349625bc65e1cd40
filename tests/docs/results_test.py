# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The page of results follows from its figures, and its runs can be started."""

import functools
import inspect
import json
import pathlib
import sys

import pytest

from jdistill import config
from jdistill import methods as methods_lib

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "results"))

import drafts
import experiments
import methods as table
import page

ARMS = [
  pytest.param(experiment, name, id=f"{experiment.name}-{name}")
  for experiment in table.EXPERIMENTS.values()
  for name in experiment.arms
]


@functools.cache
def loaded_of(experiment: str, arm: str):
  """The config that a trial of an arm would run."""
  argv = experiments.trial(table.EXPERIMENTS[experiment], arm, 0.125)
  at = argv.index("--workdir")
  return config.load(ROOT / argv[1], [*argv[2:at], *argv[at + 2 :]])


@pytest.mark.parametrize(("experiment", "arm"), ARMS)
def test_every_arm_is_a_config(experiment, arm):
  loaded = loaded_of(experiment.name, arm)
  stages = getattr(loaded, "stages", {"": loaded})
  last = list(stages.values())[-1]
  assert last.seed == experiments.TRIAL_SEED not in experiment.seeds
  assert last.optimizer.lr.peak == 0.125
  known = {f"{name}/" for name in last.evals}
  assert all(key.split("/")[0] + "/" in known for key in experiment.metrics)


@pytest.mark.parametrize(
  "experiment", table.EXPERIMENTS.values(), ids=list(table.EXPERIMENTS)
)
def test_arms_differ_and_name_each_other(experiment):
  arms = experiment.arms
  assert experiment.control in arms
  own = [name for name, arm in arms.items() if arm.rate_of is None]
  assert {arm.rate_of for arm in arms.values()} <= {None, *own}
  loaded = [loaded_of(experiment.name, arm) for arm in arms]
  assert all(a != b for i, a in enumerate(loaded) for b in loaded[:i])
  assert len({experiments.slug(name) for name in arms}) == len(arms)
  assert set(experiment.metrics.values()) <= {"lower", "higher"}
  assert all((ROOT / line.split()[1]).is_file() for line in experiment.first)


WRITTEN = {"log_probs", "sampling_log_probs", "age", "source", "reward"}


def test_methods_of_written_text_have_a_row():
  """Those that ask for what only a rollout gives, whatever they are."""
  shown = {n for e in table.EXPERIMENTS.values() for n in e.methods}
  classes = inspect.getmembers(methods_lib, inspect.isclass)
  for name, method in classes:
    if not issubclass(method, methods_lib.Method) or inspect.isabstract(method):
      continue
    try:
      needs = method().needs()
    except TypeError:  # it needs fields
      continue
    views = set(needs.views) - {"student", "teacher"}
    if views or WRITTEN & set(needs.data):
      assert name in shown, f"{name} has no experiment in docs/results"


def test_the_page_is_what_its_figures_make():
  figures = json.loads(page.FIGURES.read_text())
  assert page.PAGE.read_text() == page.markdown(figures)
  assert set(figures) <= set(table.EXPERIMENTS)
  for name, arms in figures.items():
    experiment = table.EXPERIMENTS[name]
    assert list(arms) == list(experiment.arms)
    assert experiment.verdict
    for arm, found in arms.items():
      argv = experiments.published(experiment, arm, experiment.seeds[0])
      assert experiment.arms[arm].flags in " ".join(argv)
      assert found["command"].startswith(f"jdistill train {experiment.config}")
      assert len(found["metrics"]) == len(experiment.metrics)
      assert all(
        len(v) == len(found["seeds"]) for v in found["metrics"].values()
      )


@pytest.fixture
def runs(tmp_path, monkeypatch):
  monkeypatch.setattr(experiments, "RUNS", tmp_path)

  def finish(argv, **metrics):
    path = experiments.workdir(argv)
    path.mkdir(parents=True)
    row = {"step": 2, **metrics}
    (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (path / "result.json").write_text("{}")

  return finish


def test_the_best_learning_rate_is_that_of_the_arm_or_of_its_model(runs):
  experiment = drafts.DISTILLSPEC
  own, follower = "FKL, fixed text", "FKL, target's text"
  assert experiment.arms[follower].rate_of == own
  assert experiments.best_rate(experiment, own) is None
  for rate, value in zip(experiment.rates, (0.5, 0.75, 0.6), strict=True):
    argv = experiments.trial(experiment, own, rate)
    runs(argv, **{"eval/acceptance": value, "eval/kl": 1 - value})
  assert experiments.best_rate(experiment, follower) == experiment.rates[1]
  argv = experiments.published(experiment, follower, 2)
  assert f"{experiment.rates[1]:g}" in argv
  assert experiments.workdir(argv).name.endswith("-2")


@pytest.mark.parametrize(
  ("gaps", "said"),
  [
    ([-0.026, -0.021, -0.019], "better"),  # t = -10.6
    ([0.026, 0.021, 0.019], "worse"),
    ([-0.03, -0.02, -0.01], "not told apart"),  # t = -3.46, p = 0.074
    ([-0.03, -0.02, -0.015], "better"),  # t = -4.91, p = 0.039
  ],
)
def test_differences_are_judged_by_a_paired_t_test(gaps, said):
  assert page._judged(gaps, "lower") == said
