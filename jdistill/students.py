# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""How a student starts: kept layers, random weights, a whole model, adapters,
new tokens."""

import dataclasses
from typing import Annotated, Literal

import tyro

from jdistill.models import low_rank
from jdistill.models.base import Architecture


@dataclasses.dataclass(frozen=True)
class Cut:
  """A student that keeps chosen layers of a model, weights included.

  `layers` are their indices; a number keeps that many, spread evenly with
  first and last. `ref` is the model, by default the first teacher.
  """

  layers: int | tuple[int, ...]
  ref: str | None = None


@dataclasses.dataclass(frozen=True)
class Fresh:
  """A student drawn at random.

  Without an `architecture` it takes the shape that `like` gives (a `Cut` whose
  weights are thrown away: the control arm of a cut student).
  """

  architecture: Annotated[Architecture | None, tyro.conf.Fixed] = None
  like: Cut | None = None


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A student that starts from a whole model."""

  ref: str
  architecture: Annotated[Architecture | None, tyro.conf.Fixed] = None


@dataclasses.dataclass(frozen=True)
class Lora:
  """A student of which only low-rank adapters are trained.

  The adapters stand beside the products `targets` of each layer (q, k, v, o,
  gate, up, down), add alpha / rank of what they compute, and start at nothing:
  at step 0 the student is its `base`. `also` are patterns of further parameters
  to train, such as `*norm/scale`. Where the run is read, to be exported, judged
  or continued, the adapters are merged into the kernels.
  """

  base: Cut | Pretrained
  rank: int = 16
  alpha: float = 32.0
  targets: tuple[str, ...] = low_rank.TARGETS
  also: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Retokenised:
  """A student that starts from a model and reads other tokens.

  Its tokenizer is `Config.tokenizer`: that of another model, or "bytes". Each
  of its tokens is embedded as the `mean` of the model's tokens for the same
  text, or as the `nearest` string's. The layers of `base` stay as they are.
  """

  base: Cut | Pretrained
  embed: Literal["mean", "nearest"] = "mean"


Student = Cut | Fresh | Lora | Pretrained | Retokenised
