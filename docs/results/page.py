# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Makes docs/results.md of the experiments and their figures.

python docs/results/page.py   # from the root of the repository

Experiments whose runs are in runs/methods/ are read from there into
methods.json; of the others the figures stay as they are. Then the page is
written from methods.json and methods.py alone.
"""

import ast
import inspect
import json
import math
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import experiments
from experiments import Experiment
from methods import EXPERIMENTS

HERE = pathlib.Path(__file__).parent
FIGURES = HERE / "methods.json"
PAGE = HERE.parent / "results.md"

T_QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Of Student's distribution for so many seeds, at 0.975."""

INTRODUCTION = """# What each method was measured to do

Each method that learns from written text, and some more, on a small world that
is known exactly: does what its paper claims hold there? The figures are small
on purpose, so that every row can be repeated in a minute on one core, and say
nothing about large models.

All arms of an experiment have the same budget of updates and tokens, which its
section states, with the CPU seconds of the training steps (writing and
compiling included, evaluations not; taken while other work ran on the machine).
Learning rates were chosen by a seed that is not among the published ones, out
of the same few for each arm that tried its own, by the first metric; the other
arms have the rate of one that did. Figures are mean and standard deviation over
seeds. The difference is to the control of the same seed, which has the same
start, order of data and noise of the evaluation; it is called better or worse
where a paired t test over the seeds gives p < 0.05, which happens by chance in
one of twenty comparisons.

`python docs/results/run.py NAME` runs an experiment again, `python
docs/results/page.py` makes this page from the runs. Metrics: `eval/...` on the
data's own answers to held-out prompts, `own/...` on what the student writes to
them; KL in nats per token, `kl` of the student from the teacher and
`reverse_kl` the other way round; `acceptance` is 1 - TVD, `block_efficiency`
the tokens that a pass of the target gives with four guesses, `reward` the share
of right greedy answers.
"""


def collect(experiment: Experiment) -> dict[str, Any] | None:
  """Figures of the published runs, by arm; None unless all have finished."""
  from jdistill import types
  from jdistill.report import record, results

  found = {}
  for arm in experiment.arms:
    argvs = [
      experiments.published(experiment, arm, s) for s in experiment.seeds
    ]
    paths = [experiments.workdir(argv) for argv in argvs]
    if not all(experiments.finished(path) for path in paths):
      return None
    rows = results.results([record.read_run(path) for path in paths])["rows"]
    if len(rows) != 1:
      raise types.UserError(
        f"{experiment.name}, {arm}: its runs differ in more than their seed; "
        f"remove {', '.join(map(str, paths))} and run them again"
      )
    ends = [experiments.last(path) for path in paths]
    spent = [experiments.spent(path) for path in paths]
    found[arm] = {
      "command": f"jdistill {shlex.join(argvs[0])}",
      "seeds": list(experiment.seeds),
      "rate": experiments.best_rate(experiment, arm),
      "trials": _trials(experiment, arm),
      **{key: spent[0][key] for key in ("updates", "tokens")},
      "cpu_seconds": round(_mean([s["cpu_seconds"] for s in spent]), 1),
      "metrics": {
        key: [round(end[key], 5) for end in ends] for key in experiment.metrics
      },
    }
  return found


def _trials(experiment: Experiment, arm: str) -> dict[str, float]:
  """The first metric after each learning rate that the arm tried itself."""
  if experiment.arms[arm].rate_of is not None:
    return {}
  key = next(iter(experiment.metrics))
  found = {}
  for rate in experiment.rates:
    path = experiments.workdir(experiments.trial(experiment, arm, rate))
    if experiments.finished(path):
      found[f"{rate:g}"] = round(experiments.last(path)[key], 5)
  return found


def markdown(figures: Mapping[str, Any]) -> str:
  """The page.

  Args:
    figures: by experiment and arm, as `collect` gives them.
  """
  sections = [
    _section(experiment, figures[name])
    for name, experiment in EXPERIMENTS.items()
    if name in figures
  ]
  return "\n".join([INTRODUCTION, _contents(figures), *sections])


def _contents(figures: Mapping[str, Any]) -> str:
  lines = ["| method | claim | found |", "|---|---|---|"]
  for name, experiment in EXPERIMENTS.items():
    title, verdict = experiment.title, "not measured yet"
    if name in figures:
      title, verdict = f"[{title}](#{_anchor(title)})", experiment.verdict
    lines.append(f"| {title} | {experiment.claim} | {verdict} |")
  return "\n".join([*lines, ""])


def _anchor(title: str) -> str:
  return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _section(experiment: Experiment, arms: Mapping[str, Any]) -> str:
  control = arms[experiment.control]
  keys = list(experiment.metrics)
  arrows = {"lower": "↓", "higher": "↑"}
  head = ["arm", *(f"{k} {arrows[experiment.metrics[k]]}" for k in keys)]
  head += [f"{keys[0]}: difference", "so it is", "CPU s", "rate"]
  lines = [
    f"## {experiment.title}",
    "",
    f"{experiment.paper}. {_fidelity(experiment)}",
    "",
    f"**Claim.** {experiment.claim}",
    "",
    f"**Found.** {experiment.verdict}",
    "",
    f"Budget: {experiment.budget}. Control: {experiment.control}. Seeds "
    f"{', '.join(map(str, experiment.seeds))}.",
    "",
    _line(head),
    _line(["---", *["---:"] * (len(head) - 1)]),
  ]
  for name, arm in arms.items():
    cells = [f"**{name}**" if name == experiment.control else name]
    cells += [_spread(arm["metrics"][key]) for key in keys]
    if name == experiment.control:
      cells += ["", ""]
    else:
      pairs = [arm["metrics"][keys[0]], control["metrics"][keys[0]]]
      gaps = [ours - theirs for ours, theirs in zip(*pairs, strict=True)]
      cells.append(f"{_mean(gaps):+.3f} ± {_std(gaps):.3f}")
      cells.append(_judged(gaps, experiment.metrics[keys[0]]))
    cells.append(f"{arm['cpu_seconds']:.0f}")
    cells.append("" if arm["rate"] is None else f"{arm['rate']:g}")
    lines.append(_line(cells))
  lines += ["", "```sh"]
  lines += [f"jdistill {line}" for line in experiment.first]
  lines += [arm["command"] for arm in arms.values()]
  lines += ["```", ""]
  return "\n".join(lines)


def _fidelity(experiment: Experiment) -> str:
  """What the files of the methods say of themselves."""
  from jdistill import methods

  said = []
  for name in experiment.methods:
    path = inspect.getfile(getattr(methods, name))
    text = ast.get_docstring(ast.parse(pathlib.Path(path).read_text())) or ""
    label = re.search(r"\nFidelity: (\w+)", text)
    assert label is not None, path
    file = f"jdistill/methods/{pathlib.Path(path).name}"
    said.append(f"[`{name}`](../{file}): {label[1]}")
  return f"Fidelity: {', '.join(said)}."


def _judged(gaps: Sequence[float], better: str) -> str:
  """Whether differences of several seeds are more than chance."""
  limit = T_QUANTILES[len(gaps)] / math.sqrt(len(gaps))
  if abs(_mean(gaps)) <= limit * _std(gaps):
    return "not told apart"
  return "better" if (_mean(gaps) < 0) == (better == "lower") else "worse"


def _spread(values: Sequence[float]) -> str:
  places = 3 if max(map(abs, values)) < 10 else 1
  return f"{_mean(values):.{places}f} ± {_std(values):.{places}f}"


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values)


def _std(values: Sequence[float]) -> float:
  """Of a sample."""
  if len(values) < 2:
    return math.inf
  mean = _mean(values)
  return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _line(cells: Sequence[str]) -> str:
  return f"| {' | '.join(cells)} |"


def main() -> int:
  """Reads the runs that there are and writes both files."""
  figures = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
  for name, experiment in EXPERIMENTS.items():
    found = collect(experiment)
    if found is not None:
      figures[name] = found
    print(f"{name}: {'read' if found else 'not all runs have finished'}")
  figures = {name: figures[name] for name in EXPERIMENTS if name in figures}
  FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
  PAGE.write_text(markdown(figures))
  return 0


if __name__ == "__main__":
  sys.exit(main())
