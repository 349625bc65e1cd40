# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out data: reading it, and what is said and kept of it."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jdistill import (
  cached,
  checkpoint,
  data,
  distributed,
  metrics,
  run,
  run_rollout,
  sharding,
  tokenizers,
  types,
)


class HeldOut:
  """Held-out data, read again from the start at every evaluation.

  Of several processes each reads its `share`, of `sharding.row_share`. `said`
  are teachers that have spoken of the data before.
  """

  def __init__(
    self,
    spec: data.Data,
    tokenizer: Any,
    cache: pathlib.Path | None,
    share: Mapping[str, int],
    said: Mapping[str, cached.Said] | None = None,
  ):
    self.spec = dataclasses.replace(spec, shuffle=False, epochs=1)
    self.tokenizer = tokenizer
    self.said = dict(said or {})
    self.loader = data.load(
      self.spec,
      tokenizer,
      seed=0,
      cache_dir=cache,
      beside=cached.beside(self.said),
      **share,
    )
    self.begin = self.loader.state()
    self.first: types.Batch | None = None  # of all processes

  def run(
    self, built: run.Run, params, teacher_params, *, write: Any = None
  ) -> types.Metrics:
    """Sums over all of it; `tokens/...` of the first batch alone.

    With `write`, one of `Run.eval_writes`, the answers are what it writes, and
    the config's reward judges them: `reward`, mean over prompts.
    """
    self.loader.restore(self.begin)
    reward = built.config.reward
    found, tokens = [], {}
    for arrays in self.loader:
      batch = run.to_batch(arrays, said=self.said)
      placed = sharding.place_rows(batch, built.mesh)
      worth = {}
      if write is not None:
        placed = write(params, built.writers(teacher_params), placed)
        if reward is not None:
          _, worth["reward"] = run_rollout.judge(
            reward, placed, self.tokenizer, built.mesh
          )
      sums = {**built.eval_step(params, teacher_params, placed), **worth}
      own = {k: sums.pop(k) for k in list(sums) if k.startswith("tokens/")}
      if not tokens:
        tokens = own
        self.first = distributed.whole_rows(placed, built.mesh)
      found.append(jax.device_get(sums))
    return metrics.add(found) | jax.device_get(tokens)


def summary(sums: types.Metrics) -> dict[str, float]:
  """The numbers that people compare: kl, ppl, agreement, bits_per_byte, ...

  `ece` is the expected calibration error of the likeliest id (Guo et al., 2017,
  arXiv:1706.04599), `trust` the accuracy less this (FIRST). `kl_se` and `ce_se`
  are standard errors.
  """
  scalars = {k: m for k, m in sums.items() if np.ndim(m.sum) == 0}
  row = metrics.means(scalars)
  row["tokens"] = float(sums["ce"].weight)
  row["ppl"] = float(np.exp(row["ce"]))
  if "calibration" in sums:
    bins = sums["calibration"]
    row["ece"] = float(np.abs(bins.sum).sum() / np.sum(bins.weight))
    row["trust"] = row["accuracy"] - row["ece"]
  for name in ("kl", "ce"):
    if f"spread/{name}" in sums:
      row[f"{name}_se"] = standard_error(sums, name)
  if "teacher_ce" in row:
    row["teacher_ppl"] = float(np.exp(row["teacher_ce"]))
  if "bits" in row:
    row["bits_per_byte"] = row.pop("bits")
  return row


def standard_error(sums: types.Metrics, name: str) -> float:
  """Of a mean over tokens that come in rows, in its unit.

  Tokens of a row are not independent, so rows are what varies: the ratio
  estimator's standard error (Cochran, 1977, section 6.3; Miller, 2024,
  arXiv:2411.00640, on clusters). NaN for a single row.
  """
  mean = float(sums[name].sum) / float(sums[name].weight)
  count, vv, vw, ww = np.asarray(sums[f"spread/{name}"].sum, np.float64)
  if count < 2:
    return float("nan")
  squares = max(vv - 2 * mean * vw + mean**2 * ww, 0.0)
  scale = count / (count - 1)
  return float(np.sqrt(scale * squares) / float(sums[name].weight))


def by_class(sums: types.Metrics) -> dict[str, dict[str, float]]:
  """`ce`, `kl`, `agreement` and number of `tokens` of each class there is."""
  found: dict[str, dict[str, float]] = {}
  for key, mean in sums.items():
    kind, _, name = key.partition("/")
    if kind != "classes":
      continue
    for label, value, weight in zip(
      tokenizers.CLASSES, mean.sum, mean.weight, strict=False
    ):
      if weight:
        row = found.setdefault(label, {"tokens": float(weight)})
        row[name] = float(value / weight)
  return found


def reliability(sums: types.Metrics) -> list[dict[str, float]]:
  """Where confidence lies, and how far accuracy is from it, by equal parts of
  [0, 1]: `confidence` (the middle of the part), `gap` (accuracy less mean
  confidence) and number of `tokens`; parts without any are left out."""
  bins = sums["calibration"]
  size = len(bins.sum)
  return [
    {"confidence": (i + 0.5) / size, "gap": float(s / w), "tokens": float(w)}
    for i, (s, w) in enumerate(zip(bins.sum, bins.weight, strict=True))
    if w
  ]


def result_of(rows, evals: list[str]) -> dict[str, Any]:
  """The table that a finished run prints, from its rows of metrics."""
  keys = ("kl", "coarse_kl", "ppl", "agreement", "bits_per_byte", "accuracy",
          "ece", "reward", "tokens", "kl_se", "ce_se")  # fmt: skip
  table = {}
  for name in evals:
    found = [r for r in rows if f"{name}/ce" in r]
    if not found:
      continue
    start, end = found[0], found[-1]
    table[name] = {
      which: {k: r[f"{name}/{k}"] for k in keys if f"{name}/{k}" in r}
      for which, r in (("start", start), ("end", end))
    }
    if f"{name}/teacher_ppl" in end:
      teacher = {"kl": 0.0, "ppl": end[f"{name}/teacher_ppl"], "agreement": 1.0}
      table[name] = {"teacher": teacher} | table[name]
  return {"steps": rows[-1]["step"] if rows else 0, "evals": table}


def write_details(workdir, step, name, sums, held, tokenizer) -> None:
  """Arrays that the report draws: KL by position, and token by token.

  Of several processes the first writes.
  """
  if "by_position/kl" not in sums or jax.process_index() != 0:
    return
  directory = workdir / "samples"
  directory.mkdir(exist_ok=True)
  curve, tokens = sums["by_position/kl"], sums["tokens/kl"]
  view = held.first["student"]
  # The longest; among equals the first of the data, however it was divided.
  lengths = np.asarray(view.mask).sum(-1)
  row = int(np.lexsort((held.first.example_id, -lengths))[0])
  ids = view.tokens[row]
  if tokenizer is None:
    text = held.spec.pieces(ids)
  else:
    texts = tokenizer.convert_ids_to_tokens(ids.tolist())
    text = [tokenizer.convert_tokens_to_string([t]) for t in texts]
  checkpoint.dump_json(
    directory / f"{name}-{step:08d}.json",
    {
      "step": step,
      "by_position": _ratio(curve),
      "text": text,
      "kl": np.asarray(tokens.sum)[row].round(5).tolist(),
      "mask": np.asarray(tokens.weight)[row].tolist(),
      "classes": by_class(sums),
      "reliability": reliability(sums),
    },
  )


def _ratio(mean: types.Mean) -> list[float | None]:
  pairs = zip(np.asarray(mean.sum), np.asarray(mean.weight), strict=True)
  return [float(s / w) if w else None for s, w in pairs]
