# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Curves whose law is known: where the detector sees a bend, and where not."""

import numpy as np
import pytest
from scipy import stats

from jdistill import audit, types

END = 10_000
EARLY = np.unique(np.geomspace(10, END, 30).round().astype(int))
EVEN = np.arange(1, 101) * 100
BEND = 3_000


def noisy(steps, seed, *, slope=0.5, noise=0.01, after=None):
  """2 t^-slope, from `BEND` on with the slope `after`, times noise."""
  log = np.log(steps)
  fall = slope * np.minimum(log, np.log(BEND))
  rest = slope if after is None else after
  fall = fall + rest * np.maximum(log - np.log(BEND), 0.0)
  rng = np.random.default_rng(seed)
  return 2 * np.exp(noise * rng.normal(size=len(steps)) - fall)


@pytest.mark.parametrize("steps", [EARLY, EVEN], ids=["early", "even"])
@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_power_laws_are_seldom_flagged(steps, noise):
  states = [
    audit.detect(steps, noisy(steps, seed, noise=noise)).state
    for seed in range(200)
  ]
  assert states.count("bent") <= 2
  if noise < 0.01:  # the fall of others may drown in the noise
    assert states.count("straight") >= 198


@pytest.mark.parametrize("after", [0.0, -0.5], ids=["flat", "rising"])
@pytest.mark.parametrize("steps", [EARLY, EVEN], ids=["early", "even"])
def test_bends_are_found_where_they_are(steps, after):
  found = [
    audit.detect(steps, noisy(steps, seed, after=after)) for seed in range(100)
  ]
  at = [one.step for one in found if one.step is not None]
  assert len(at) >= 98
  assert BEND <= np.median(at) <= 2 * BEND
  assert np.mean([step < BEND for step in at]) <= 0.02


def test_a_bend_that_noise_could_make_is_none():
  """Less than the line's own error, carried on to the end, allows."""
  steps = EARLY
  found = [
    audit.detect(steps, noisy(steps, s, noise=0.1, after=0.4)).state
    for s in range(100)
  ]
  assert found.count("bent") <= 10


def test_the_line_is_that_of_least_squares():
  values = noisy(EARLY, 0)
  found = audit.detect(EARLY, values)
  low, high = 10 * 1000**0.1, 10 * 1000**0.4
  inside = (low <= EARLY) & (high >= EARLY)
  said = stats.linregress(np.log(EARLY[inside]), np.log(values[inside]))
  assert found.line.slope == pytest.approx(-said.slope)
  assert found.line.level == pytest.approx(said.intercept)
  assert found.line.num == inside.sum()
  ends = EARLY[inside][[0, -1]].tolist()
  assert [found.line.first, found.line.last] == ends
  assert found.line.at(1.0) == pytest.approx(np.exp(said.intercept))


def test_only_the_third_in_a_row_tells():
  """Outliers do not, and the first of three is the one that is named."""
  values = noisy(EARLY, 1, noise=0.0)
  values[[15, 16, 18, 19]] *= 1.5
  assert audit.detect(EARLY, values).state == "straight"
  values[17] *= 1.5
  found = audit.detect(EARLY, values)
  assert (found.step, found.by) == (EARLY[15], "residual")
  assert audit.detect(EARLY, values, in_a_row=6).state == "straight"


def test_a_slope_that_halves_is_told_where_residuals_are_not():
  values = noisy(EVEN, 3, noise=0.03, after=0.0)
  found = audit.detect(EVEN, values, sigmas=3.0)
  assert (found.state, found.by) == ("bent", "slope")


@pytest.mark.parametrize(
  ("steps", "values"),
  [
    ([], []),
    ([0], [1.0]),
    ([0, 10, 20, 30], [4.0, 3.0, 2.0, 1.0]),
    (EARLY, np.full(len(EARLY), np.nan)),
    (EARLY, np.zeros(len(EARLY))),
    (EARLY, -np.ones(len(EARLY))),
    (EVEN[:30], noisy(EVEN[:30], 0)),  # three of them in the window
  ],
  ids=["none", "start", "few", "nan", "zero", "negative", "sparse"],
)
def test_too_few_evaluations_are_said_to_be(steps, values):
  found = audit.detect(steps, values)
  assert found.state == "too few evaluations"
  assert found.line is found.step is found.deviation is None


def test_a_run_that_has_not_left_the_window():
  """With its end known; the line stays the same from then on."""
  values = noisy(EARLY, 0, after=0.0)
  now = EARLY <= 140
  early = audit.detect(EARLY[now], values[now], until=END)
  assert early.state == "too few evaluations"
  whole = audit.detect(EARLY, values, until=END)
  for until_now in (400, 2_000):
    now = until_now >= EARLY
    part = audit.detect(EARLY[now], values[now], until=END)
    assert part.line == whole.line
    assert part.state == "straight"
  assert whole.state == "bent"


def test_what_is_no_number_is_left_out():
  values = noisy(EARLY, 0, after=0.0)
  holes = values.copy()
  holes[[0, 12, 28]] = np.nan, 0.0, np.inf
  steps = np.concatenate([[0], EARLY])
  found = audit.detect(steps, np.concatenate([[9.0], holes]))
  assert found.num == len(EARLY) - 3
  assert found.state == "bent"


@pytest.mark.parametrize("values", [np.ones(30), noisy(EARLY, 0, slope=-0.2)])
def test_without_a_fall_there_is_no_bend(values):
  assert audit.detect(EARLY, values[: len(EARLY)]).state == "not falling"


def test_exact_curves_and_large_steps():
  values = 3.0 * EARLY**-0.7
  assert audit.detect(EARLY, values).state == "straight"
  far = EARLY.astype(np.int64) * 10**9
  assert audit.detect(far, values).line.slope == pytest.approx(0.7)


def test_the_golden_distance_is_compared():
  values, golden = noisy(EARLY, 0), noisy(EARLY, 1, after=-0.5)
  golden[3] = np.nan
  found = audit.detect(EARLY, values, golden=golden)
  least = int(np.nanargmin(golden))
  assert found.state == "straight"
  assert found.golden == audit.Golden(
    int(EARLY[least]),
    *map(float, (golden[least], golden[-1], values[least], values[-1])),
  )


@pytest.mark.parametrize(
  "call",
  [
    lambda: audit.detect([2, 1], [1.0, 1.0]),
    lambda: audit.detect([1, 2], [1.0]),
    lambda: audit.detect([1, 2], [1.0, 1.0], golden=[1.0]),
    lambda: audit.TeacherHacking(window=(0.4, 0.1)),
    lambda: audit.TeacherHacking(least=2),
    lambda: audit.TeacherHacking(in_a_row=0),
  ],
)
def test_bad_input(call):
  with pytest.raises(types.UserError):
    call()


# As an audit of rows.


def rows(values, golden=None):
  found = [{"step": 0, "eval/kl": 9.0}, {"step": 5, "loss": 1.0}]
  for number, (step, value) in enumerate(zip(EARLY, values, strict=True)):
    row = {"step": int(step), "eval/kl": float(value), "loss": 2 * float(value)}
    if golden is not None:
      row["eval/kl_oracle"] = float(golden[number])
    found.append(row)
  return found


def test_rows_are_read_by_metric():
  told = rows(noisy(EARLY, 0, after=0.0))
  again = {"step": told[4]["step"], "eval/kl": told[4]["eval/kl"]}
  told[4]["eval/kl"] = 50.0  # written again after a restart
  told = [*told, again, {"step": 20_000, "eval/kl": None}]
  for metric in ("eval/kl", "loss"):
    found = audit.TeacherHacking(metric).look(told, END)
    assert found.flagged
    assert found.numbers["flagged"] == 1.0
    assert found.facts["step"] >= BEND
    assert f"{metric} falls as step^-0.5" in found.said
    [chart] = found.charts
    assert [c.role for c in chart.curves] == ["data", "model", "point"]
    assert chart.curves[2].x == (found.facts["step"],)


def test_golden_is_drawn_over_the_proxy():
  golden = noisy(EARLY, 1, after=-0.5)
  values = noisy(EARLY, 0, after=0.0)
  one = audit.TeacherHacking(golden="eval/kl_oracle")
  found = one.look(rows(values, golden), END)
  assert "eval/kl_oracle was lowest at step" in found.said
  _, chart = found.charts
  assert chart.curves[0].x == tuple(values)
  assert chart.curves[0].y == tuple(golden)
  assert [c.label for c in chart.curves[1:]] == ["golden lowest", "flagged"]


@pytest.mark.parametrize("num", [0, 1, 2, 8])
def test_a_run_that_has_just_begun(num):
  found = audit.TeacherHacking().look(rows(noisy(EARLY, 0))[:num], END)
  assert not found.flagged
  assert "too few evaluations" in found.said
  assert found.numbers == {"flagged": 0.0}


def test_a_metric_that_does_not_come_is_named():
  one = audit.TeacherHacking(golden="eval/kl_truth")
  with pytest.raises(types.UserError, match=r"audits\.watch.*eval/kl_truth"):
    audit.look({"watch": one}, rows(noisy(EARLY, 0)), END)
