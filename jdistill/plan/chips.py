# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Chips by their published peaks, and topologies by name."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from jdistill import types

GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one device of a kind can do at best.

  `flops` are bfloat16 products and sums per second. `hbm` is what the
  compiler lets a program use, bytes. Rates are bytes per second: of `hbm_rate`
  the device's memory, of `ici_rate` one direction of one link to a neighbour,
  of `dcn_rate` the device's share of its host's network.
  """

  flops: float
  hbm: float
  hbm_rate: float
  ici_rate: float
  dcn_rate: float = 6.25e9
  devices_per_chip: int = 1


CHIPS = {
  "v4": Chip(275e12, 30.75 * GIB, 1228e9, 45e9),
  "v5e": Chip(197e12, 15.75 * GIB, 819e9, 45e9),
  "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 90e9),
  "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 90e9),
  "tpu7x": Chip(1153e12, 94.75 * GIB, 3690e9, 90e9, devices_per_chip=2),
}
"""By the names that topologies start with, one entry per JAX device.

Cloud TPU documentation, and for links J. Austin et al., How to Scale Your
Model, 2025, chapter 2.
"""

_MOST = 1 << 20
_NAME = re.compile(
  r"(?P<chip>\w+):(?P<shape>\d+(?:x\d+)*)(?:\*(?P<slices>\d+))?"
)


@dataclasses.dataclass(frozen=True)
class Topology:
  """What a plan is made for, `v5p:4x8x8` or `v5e:16x16*2` (two slices)."""

  name: str
  kind: str  # of CHIPS, or "gpu"
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def chip(self) -> Chip | None:
    """Its peaks; None for a GPU, of which nothing is compiled here."""
    return CHIPS.get(self.kind)

  @property
  def num_devices(self) -> int:
    per_chip = self.chip.devices_per_chip if self.chip else 1
    return math.prod(self.shape) * self.slices * per_chip


def parse(name: str) -> Topology:
  """Reads a topology's name.

  Raises: UserError for a kind of chip or a form that is not known.
  """
  found = _NAME.fullmatch(name)
  if not found or found["chip"] not in (*CHIPS, "gpu"):
    raise types.UserError(
      f"--topology {name!r}: expected KIND:SHAPE with KIND one of "
      f"{', '.join(CHIPS)}, gpu, such as v5e:4x4, v5p:4x8x8, v5e:16x16*2 for "
      "two slices, or gpu:8"
    )
  shape = tuple(int(n) for n in found["shape"].split("x"))
  slices = int(found["slices"] or 1)
  if min(*shape, slices) < 1 or math.prod(shape) * slices > _MOST:
    raise types.UserError(
      f"--topology {name!r}: expected 1 to {_MOST} chips in all"
    )
  return Topology(name, found["chip"], shape, slices)


def devices(topology: Topology) -> Sequence[Any]:
  """The TPU compiler's devices of a topology; there need be no TPU.

  Raises: UserError without libtpu, or for a shape that chips do not come in.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise types.UserError(
      "planning for TPUs needs their compiler, libtpu: pip install 'jax[tpu]'"
    )
  # Several processes may plan at once; none of them has a TPU to ask.
  for key, value in {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
  }.items():
    os.environ.setdefault(key, value)
  from jax.experimental import topologies

  options: dict[str, Any] = {}
  if topology.slices > 1:
    options["num_slices"] = topology.slices
  if topology.kind == "v4":
    options["chip_config_name"] = "megacore"
  if math.prod(topology.shape) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  name = f"{topology.kind}:{'x'.join(map(str, topology.shape))}"
  try:
    return topologies.get_topology_desc(name, "tpu", **options).devices
  except Exception as error:
    raise types.UserError(
      f"--topology {topology.name}: the TPU compiler knows no such slice: "
      f"{str(error).splitlines()[0]}"
    ) from error
