# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Whether parameters fit a config, and whether a file format can say it."""

import dataclasses
import math

from jdistill import types
from jdistill.models.decoder import DecoderConfig
from jdistill.models.weights import layout
from jdistill.types import UserError

ELSEWHERE = (
  "attention", "dtype", "kernels", "low_rank", "remat", "segments", "ropes",
  "query_scale", "experts",
)  # fmt: skip
"""Fields that say how a model is computed, or that are compared by meaning."""


def check_params(config: DecoderConfig, params: types.PyTree) -> None:
  """Compares parameters with the config by path and shape.

  Raises:
    UserError: naming the first that does not fit.
  """
  given = dict(layout.walk(params))
  for path, shape in layout.walk(config.shapes()):
    leaf = given.pop(path, None)
    if leaf is None or leaf.shape != shape.shape:
      found = "is missing" if leaf is None else f"has shape {leaf.shape}"
      raise UserError(
        f"parameter {'/'.join(path)} {found}; the config asks for {shape.shape}"
      )
  if given:
    extra = "/".join(next(iter(given)))
    raise UserError(f"parameter {extra} has no place in the config's model")


def differences(config: DecoderConfig, other: DecoderConfig) -> list[str]:
  """What two configs compute differently, a phrase each."""
  found = []
  for field in dataclasses.fields(DecoderConfig):
    if field.name in ELSEWHERE:
      continue
    found += _difference(config, other, field.name)
  for name in (
    "windows",
    "layer_ropes",
    "score_scale",
    "mixture",
    "sparse_layers",
  ):
    found += _difference(config, other, name)
  return found


def _difference(
  config: DecoderConfig, other: DecoderConfig, name: str
) -> list[str]:
  ours, theirs = getattr(config, name), getattr(other, name)
  if isinstance(ours, float) and isinstance(theirs, float | int):
    same = math.isclose(ours, theirs, rel_tol=1e-6)
  else:
    same = ours == theirs
  return [] if same else [f"{name}: {theirs} instead of {ours}"]
