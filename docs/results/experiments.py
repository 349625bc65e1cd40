# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What an experiment is: a config, arms of flags, and what judges them."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Sequence

from jdistill import cached, metrics
from jdistill import workdir as workdir_lib

RUNS = pathlib.Path("runs/methods")
TRIAL_SEED = 9
"""Learning rates are chosen by this seed, which is not published."""


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to run a config.

  Attributes:
    flags: what differs from the config file.
    rate_of: the arm whose learning rate it takes; None tries its own.
  """

  flags: str = ""
  rate_of: str | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a method claims, and how that is tested.

  Attributes:
    name: of its directory and for the command line.
    title: the method.
    paper: who says so.
    methods: public names of `jdistill.methods` that it is made of, whose files
      say how faithful they are.
    claim: what is tested.
    config: the config file of all arms.
    arms: by name.
    control: the arm that others are compared with.
    metrics: keys of the last evaluation, the first one to be judged by, each
      "lower" or "higher", which is better.
    budget: what all arms have alike.
    verdict: what the figures say, in a sentence.
    rate: the flag of the learning rate.
    rates: those that are tried.
    first: commands of `jdistill` whose runs and caches the config names.
    seeds: of the published runs.
  """

  name: str
  title: str
  paper: str
  methods: tuple[str, ...]
  claim: str
  config: str
  arms: dict[str, Arm]
  control: str
  metrics: dict[str, str]
  budget: str
  verdict: str
  rate: str = "--optimizer.lr.peak"
  rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
  first: tuple[str, ...] = ()
  seeds: tuple[int, ...] = (0, 1, 2)


def parts(chosen: str, names: str, of: str = "--method.parts") -> str:
  """Flags that give the chosen parts of a sum weight 1, the others 0."""
  return _ones(chosen, names, of, "weight")


def writers(chosen: str, names: str, of: str = "--rollout.parts") -> str:
  """Flags that let the chosen writers of a mixture write alike, no others."""
  return _ones(chosen, names, of, "share")


def _ones(chosen: str, names: str, of: str, field: str) -> str:
  return " ".join(
    f"{of}.{name}.{field} {int(name in chosen.split())}"
    for name in names.split()
  )


def published(experiment: Experiment, arm: str, seed: int) -> list[str]:
  """The arguments of `jdistill` for one seed of an arm."""
  rate = best_rate(experiment, arm)
  return _command(experiment, arm, f"{slug(arm)}-{seed}", seed, rate)


def trial(experiment: Experiment, arm: str, rate: float) -> list[str]:
  """The same for the trial of a learning rate."""
  return _command(
    experiment, arm, f"{slug(arm)}-rate-{rate:g}", TRIAL_SEED, rate
  )


def best_rate(experiment: Experiment, arm: str) -> float | None:
  """The learning rate whose trial ended best; None if there was none."""
  own = experiment.arms[arm].rate_of or arm
  key, better = next(iter(experiment.metrics.items()))
  found = {}
  for rate in experiment.rates:
    path = workdir(trial(experiment, own, rate))
    if finished(path):
      found[rate] = last(path).get(key, float("nan"))
  sign = {"lower": 1, "higher": -1}[better]
  ended = {rate: sign * v for rate, v in found.items() if v == v}
  return min(ended, key=ended.__getitem__, default=None)


def workdir(argv: Sequence[str]) -> pathlib.Path:
  """The run directory of a command."""
  if "--workdir" in argv:
    return pathlib.Path(argv[argv.index("--workdir") + 1])
  if argv[0] == "cache":
    return pathlib.Path(argv[argv.index("--to") + 1])
  return pathlib.Path("runs") / pathlib.Path(argv[1]).stem


def finished(path: pathlib.Path) -> bool:
  """Whether a run, and of several stages the last one, has come to its end, or
  a cache is whole."""
  manifest = path / cached.MANIFEST
  if manifest.is_file():
    return json.loads(manifest.read_text())["complete"]
  return (_last_stage(path) / "result.json").is_file()


def command(path: pathlib.Path) -> list[str]:
  """The arguments of `jdistill` that a run was started with."""
  names = workdir_lib.stages(path)
  text = (path / names[0] if names else path) / "command.txt"
  return shlex.split(text.read_text())[1:]


def last(path: pathlib.Path) -> dict[str, float]:
  """The metrics of a run's last evaluation."""
  rows = metrics.read(_last_stage(path))
  return next((row for row in reversed(rows) if "loss" not in row), {})


def spent(path: pathlib.Path) -> dict[str, float]:
  """Updates, tokens and CPU seconds of a run, those of all stages together."""
  names = workdir_lib.stages(path)
  total = {"updates": 0, "tokens": 0, "cpu_seconds": 0.0}
  for stage in [path / name for name in names] or [path]:
    steps = [row for row in metrics.read(stage) if "loss" in row]
    total["updates"] += steps[-1]["step"]
    total["tokens"] += steps[-1]["tokens"]
    total["cpu_seconds"] += steps[-1]["cpu_seconds"]
  return total


def slug(name: str) -> str:
  """A name as part of a path."""
  return "".join(c if c.isalnum() else "_" for c in name)


def _last_stage(path: pathlib.Path) -> pathlib.Path:
  names = workdir_lib.stages(path)
  return path / names[-1] if names else path


def _command(
  experiment: Experiment, arm: str, run: str, seed: int, rate: float | None
) -> list[str]:
  path = RUNS / experiment.name / run
  argv = ["train", experiment.config, "--workdir", str(path)]
  argv += ["--seed", str(seed)]
  argv += [] if rate is None else [experiment.rate, f"{rate:g}"]
  return argv + experiment.arms[arm].flags.split()
