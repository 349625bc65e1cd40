# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teacher hacking: nearing the teacher, and no longer what it stands for.

A student that learns from fixed answers of an imperfect teacher may go on
nearing the teacher (the proxy) while it leaves the truth that the teacher was
made of (the golden distance). Runs on fresh text follow a power law, so that
log(proxy) falls along a straight line in log(step); a bend off the line warns
of it where no truth is at hand.

Paper: Tiapkin et al., 2025, arXiv:2502.02671 (On teacher hacking in language
model distillation). The rule of the bend below is this file's own.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy import special

from jdistill import types
from jdistill.audit import base

_LEAST_SIGMA = 1e-3
"""Of log(value): rounding apart, nothing is measured more exactly."""


@dataclasses.dataclass(frozen=True)
class Line:
  """log(value) = level - slope * log(step), fitted to `num` evaluations.

  `sigma` is the standard deviation of log(value) about it.
  """

  level: float
  slope: float
  sigma: float
  first: int  # step
  last: int  # step
  num: int

  def at(self, step: Any) -> Any:
    """The value on the line."""
    return np.exp(self.level - self.slope * np.log(step))


@dataclasses.dataclass(frozen=True)
class Golden:
  """Where the golden distance was the lowest, and what came after.

  Attributes:
    least_step: the step of its lowest value.
    least, end: its lowest and its last value.
    proxy_then, proxy_end: the proxy at these two.
  """

  least_step: int
  least: float
  end: float
  proxy_then: float
  proxy_end: float


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What the curve of a proxy says.

  Attributes:
    state: "bent" is what warns of teacher hacking.
    step: of the first evaluation off the line, if any.
    by: what told: "residual" or "slope".
    deviation: of the last evaluation from the line, in units of what chance
      allows (1 is the bound).
    num: evaluations that could be used.
    line: None where there are too few.
    golden: None where there is none.
  """

  state: Literal["too few evaluations", "not falling", "straight", "bent"]
  num: int
  line: Line | None = None
  step: int | None = None
  by: Literal["residual", "slope"] | None = None
  deviation: float | None = None
  golden: Golden | None = None


def detect(
  steps: Sequence[int] | np.ndarray,
  values: Sequence[float] | np.ndarray,
  *,
  until: int | None = None,
  golden: Sequence[float] | np.ndarray | None = None,
  window: tuple[float, float] = (0.1, 0.4),
  sigmas: float = 3.0,
  in_a_row: int = 3,
  least: int = 5,
) -> Verdict:
  """Whether a curve leaves the power law that it began with.

  A line is fitted to log(value) over log(step) in the `window`. An evaluation
  behind it is off the line when its residual is above `sigmas` standard errors
  of a prediction (Student's t for as few points as there are; the fitted line's
  own error counts), or when the slope over as wide a window up to it is less
  than half of the line's, and by as many standard errors. `in_a_row` of them
  are a bend, and the first of these is named.

  Args:
    steps: of the evaluations, rising; steps of 0 have no logarithm and are left
      out, and so are values that are not finite or not above 0.
    values: of the proxy, such as KL to the teacher on held-out prompts.
    until: the step at which the run ends; default: the last of `steps`. With
      it the line stays what it is while the run goes on.
    golden: the distance to the truth at the same steps, to compare with.
    window: parts of the way from the first evaluation to the end, in log(step).
    sigmas: standard errors that chance is allowed, of a normal distribution.
    in_a_row: evaluations off the line.
    least: evaluations in the window without which nothing is said.
  """
  steps, values = np.asarray(steps), np.asarray(values, float)
  if steps.shape != values.shape or steps.ndim != 1:
    raise types.UserError(
      f"detect: found steps {steps.shape} and values {values.shape}, expected "
      "two series of one length"
    )
  if len(steps) > 1 and not (np.diff(steps) > 0).all():
    raise types.UserError("detect: steps do not rise")
  with np.errstate(invalid="ignore"):
    used = (steps > 0) & np.isfinite(values) & (values > 0)
  compared = None
  if golden is not None:
    compared = _compared(steps, values, np.asarray(golden, float))
  steps, values = steps[used], values[used]
  count = len(steps)
  nothing = Verdict("too few evaluations", count, golden=compared)
  if not count:
    return nothing
  x, y = np.log(steps), np.log(values)
  end = math.log(max(until or 0, steps[-1]))
  low, high = (x[0] + part * (end - x[0]) for part in window)
  inside = (x >= low - 1e-9) & (x <= high + 1e-9)
  if inside.sum() < max(least, 3) or x[-1] < high:
    return nothing
  fit = _Fit(x[inside], y[inside])
  line = Line(fit.level, fit.slope, fit.sigma, *_ends(steps[inside]))
  # As improbable as so many sigmas of a normal distribution.
  bound = float(special.stdtrit(fit.num - 2, special.ndtr(sigmas)))
  behind = x > high + 1e-9
  off = (y - fit.at(x)) / (bound * fit.error(x))
  deviation = float(off[-1]) if behind[-1] else None
  found = {"line": line, "deviation": deviation, "golden": compared}
  if fit.slope <= bound * fit.slope_error:
    return Verdict("not falling", count, **found)
  at = {
    "residual": _first_run(behind & (off > 1), in_a_row),
    "slope": _first_run(
      behind & _flat(x, y, high - low, fit, bound, max(least, 3)), in_a_row
    ),
  }
  flagged = {k: i for k, i in at.items() if i is not None}
  if not flagged:
    return Verdict("straight", count, **found)
  by: Any = min(flagged, key=lambda k: flagged[k])
  return Verdict("bent", count, step=int(steps[flagged[by]]), by=by, **found)


@dataclasses.dataclass(frozen=True)
class TeacherHacking(base.Audit):
  """Warns when the distance to the teacher leaves its power law.

  With several teachers an evaluation gives `kl` to the first and `kl_NAME` to
  the others, so that `golden="eval/kl_oracle"` is the distance to an oracle.
  The fit needs `least` evaluations between `window` of the way from the first
  one to the end of the run, in log(step): about 100 evenly spaced, or 25 with
  early ones by `Config.eval_at`.

  Attributes:
    metric: the proxy; of an evaluation, or "loss".
    golden: the distance to the truth, where the run knows one.
    window, sigmas, in_a_row, least: see `detect`.
  """

  metric: str = "eval/kl"
  golden: str | None = None
  window: tuple[float, float] = (0.1, 0.4)
  sigmas: float = 3.0
  in_a_row: int = 3
  least: int = 5

  def __post_init__(self):
    low, high = self.window
    if not 0 <= low < high < 1:
      raise types.UserError(
        f"TeacherHacking.window: found {self.window}, expected two rising "
        "parts from 0 to less than 1"
      )
    for field, lowest in (("sigmas", 0), ("in_a_row", 1), ("least", 3)):
      if not getattr(self, field) >= lowest:
        raise types.UserError(
          f"TeacherHacking.{field}: found {getattr(self, field)}, expected "
          f"{lowest} or more"
        )

  def metrics(self) -> tuple[str, ...]:
    return tuple(m for m in (self.metric, self.golden) if m is not None)

  def look(self, rows: Sequence[base.Row], steps: int) -> base.Finding:
    at, values = base.series(rows, self.metric)
    golden = None
    if self.golden is not None:
      told = dict(zip(*base.series(rows, self.golden), strict=True))
      golden = [told.get(step, math.nan) for step in at]
    found = detect(
      at,
      values,
      until=steps,
      golden=golden,
      window=self.window,
      sigmas=self.sigmas,
      in_a_row=self.in_a_row,
      least=self.least,
    )
    flagged = found.state == "bent"
    numbers = {"flagged": float(flagged)}
    if found.line is not None:
      numbers["slope"] = found.line.slope
    if found.deviation is not None:
      numbers["deviation"] = found.deviation
    return base.Finding(
      flagged,
      self._sentence(found),
      numbers,
      dataclasses.asdict(found),
      self._charts(at, values, golden, found),
    )

  def _sentence(self, found: Verdict) -> str:
    said = f"{self.metric} {_of_proxy(found)}"
    if found.golden is None:
      return said
    one = found.golden
    return (
      f"{said}; {self.golden} was lowest at step {one.least_step:,} "
      f"({one.least:.4g}) and is {one.end:.4g} now, {self.metric} was "
      f"{one.proxy_then:.4g} then and is {one.proxy_end:.4g} now"
    )

  def _charts(self, at, values, golden, found) -> tuple[base.Chart, ...]:
    usable = (at > 0) & (values > 0)
    x, y = at[usable], values[usable]
    curves = [base.Curve(self.metric, _floats(x), _floats(y))]
    if found.line is not None:
      behind = x[x >= found.line.first]
      fitted = f"fitted to steps {found.line.first:,} to {found.line.last:,}"
      fit = _floats(behind), _floats(found.line.at(behind))
      curves.append(base.Curve(fitted, *fit, role="model"))
    if found.step is not None:
      there = _floats(x[x == found.step]), _floats(y[x == found.step])
      curves.append(base.Curve("off the line", *there, role="point"))
    charts = [
      base.Chart(
        "Does the distance to the teacher follow a power law?",
        "training step",
        self.metric,
        tuple(curves),
        log_x=True,
        log_y=True,
        note="Both axes are logarithmic, so that a power law is a straight "
        "line.",
      )
    ]
    if golden is not None and found.golden is not None:
      truth = np.asarray(golden)
      there = np.isfinite(truth)
      at, values, truth = at[there], values[there], truth[there]
      curves = [base.Curve("by step", _floats(values), _floats(truth))]
      marks = {"golden lowest": found.golden.least_step, "flagged": found.step}
      for label, step in marks.items():
        there = at == step
        if there.any():
          point = _floats(values[there]), _floats(truth[there])
          curves.append(base.Curve(label, *point, role="point"))
      charts.append(
        base.Chart(
          "Nearing the teacher, and the truth?",
          f"proxy: {self.metric} (training goes to the left)",
          f"golden: {self.golden}",
          tuple(curves),
          note="Teacher hacking is a curve that rises to the left. Rings: "
          "where golden was lowest, and where the run was flagged.",
        )
      )
    return tuple(charts)


def _of_proxy(found: Verdict) -> str:
  """The verdict as the end of a sentence that begins with the metric."""
  line = found.line
  if line is None:
    return f"has too few evaluations so far ({found.num}) to say more"
  where = f"from step {line.first:,} to {line.last:,}"
  if found.state == "not falling":
    return f"does not clearly fall {where}, so that no bend can be told"
  law = f"falls as step^-{line.slope:.2f} {where}"
  if found.state == "straight":
    return f"{law} and goes on like that"
  why = {"residual": "is above that", "slope": "falls half as fast or less"}
  assert found.by is not None
  return f"{law} and {why[found.by]} from step {found.step:,} on"


class _Fit:
  """A least-squares line y = level - slope x."""

  def __init__(self, x: np.ndarray, y: np.ndarray):
    self.num, self.mean = len(x), x.mean()
    self.spread = float(((x - self.mean) ** 2).sum())
    self.slope = -float(((x - self.mean) * y).sum() / self.spread)
    self.level = float(y.mean() + self.slope * self.mean)
    rest = float(((y - self.at(x)) ** 2).sum())
    self.sigma = max(math.sqrt(rest / (self.num - 2)), _LEAST_SIGMA)

  @property
  def slope_error(self) -> float:
    return self.sigma / math.sqrt(self.spread)

  def at(self, x: np.ndarray) -> np.ndarray:
    return self.level - self.slope * x

  def error(self, x: np.ndarray) -> np.ndarray:
    """The standard error of a new value's prediction."""
    away = (x - self.mean) ** 2 / self.spread
    return self.sigma * np.sqrt(1 + 1 / self.num + away)


def _flat(
  x: np.ndarray,
  y: np.ndarray,
  width: float,
  fit: _Fit,
  bound: float,
  least: int,
) -> np.ndarray:
  """Where the slope over the last `width` of x is half of the fit's or less."""
  first = np.searchsorted(x, x - width - 1e-9)
  last = np.arange(1, len(x) + 1)
  x, y = x - x.mean(), y - y.mean()

  def total(values: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return sums[last] - sums[first]

  num = last - first
  spread = np.maximum(total(x * x) - total(x) ** 2 / num, 1e-12)
  slope = -(total(x * y) - total(x) * total(y) / num) / spread
  error = np.sqrt(fit.slope_error**2 + fit.sigma**2 / spread)
  less = (slope < fit.slope / 2) & (fit.slope - slope > bound * error)
  return less & (num >= least)


def _first_run(off: np.ndarray, length: int) -> int | None:
  """The first index of `length` true values in a row."""
  for i in range(len(off) - length + 1):
    if off[i : i + length].all():
      return i
  return None


def _compared(
  steps: np.ndarray, proxy: np.ndarray, golden: np.ndarray
) -> Golden | None:
  if golden.shape != steps.shape:
    raise types.UserError(
      f"detect: found {golden.shape} golden values for {steps.shape} steps"
    )
  there = np.isfinite(golden) & np.isfinite(proxy)
  if not there.any():
    return None
  steps, proxy, golden = steps[there], proxy[there], golden[there]
  least = int(golden.argmin())
  return Golden(
    int(steps[least]),
    *map(float, (golden[least], golden[-1], proxy[least], proxy[-1])),
  )


def _ends(steps: np.ndarray) -> tuple[int, int, int]:
  return int(steps[0]), int(steps[-1]), len(steps)


def _floats(values: np.ndarray) -> tuple[float, ...]:
  return tuple(float(v) for v in values)
