# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Plans of runs whose teacher has devices of its own."""

import dataclasses
import importlib.util
import json
import pathlib

import pytest

from jdistill import apart, config, sharding, types
from jdistill import plan as plan_lib
from jdistill.models.base import num_params
from jdistill.plan import chips

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
)
NANO = pathlib.Path(__file__).with_name("nano.py")
OWN = ("--teachers.teacher.mesh.fsdp", "2", "--mesh.fsdp", "2")
Mesh = sharding.MeshShape


def test_a_plan_of_gpus_counts_each_part():
  whole = plan_lib.lower(config.load(NANO), plan_lib.parse("gpu:1"))
  made = plan_lib.lower(config.load(NANO, OWN), plan_lib.parse("gpu:4"))
  teacher = config.load(NANO).teachers["teacher"].architecture.shapes()
  assert made.apart["teacher"] == pytest.approx(num_params(teacher), rel=0.01)
  head = 2 * 16_384 * 256
  rest = whole.arguments - 2 * num_params(teacher) + head
  assert made.arguments == pytest.approx(rest / 2, rel=0.01)
  assert made.flops == whole.flops
  lines = list(plan_lib.lowered(made))
  assert any("teacher, on devices of its own" in line for line in lines)


@needs_libtpu
def test_each_process_keeps_devices_of_both_kinds():
  devices = chips.devices(plan_lib.parse("v5e:2x4"))
  assert [d.process_index for d in devices] == [0] * 4 + [1] * 4
  teacher = config.load(NANO).teachers["teacher"]

  def meshes(*sizes, mesh=None):
    teachers = {
      name: dataclasses.replace(teacher, mesh=shape)
      for name, shape in zip("ab", sizes, strict=False)
    }
    made = dataclasses.replace(
      config.load(NANO), mesh=mesh or Mesh(), teachers=teachers
    )
    mesh, own = apart.meshes(made, devices)
    return [[d.id for d in m.devices.flat] for m in (mesh, *own.values())]

  assert meshes(Mesh(2), Mesh(4)) == [[0, 4], [3, 7], [1, 2, 5, 6]]
  assert meshes(Mesh(1, 2), mesh=Mesh(2, 1, 3))[1] == [3, 7]
  with pytest.raises(types.UserError, match="do not divide over 2 processes"):
    meshes(Mesh(3))
  with pytest.raises(types.UserError, match="different rows of a batch"):
    meshes(Mesh(1, 1, 4))


@needs_libtpu
@pytest.mark.slow
def test_a_plan_of_both_programs():
  topology = plan_lib.parse("v5e:2x2")
  made = plan_lib.plan(config.load(NANO, OWN), topology)
  assert made.fits
  assert made.faults == ()
  part = made.apart["teacher"]
  assert part.mesh["fsdp"] == made.mesh["fsdp"] == 2
  teacher = config.load(NANO).teachers["teacher"].architecture.shapes()
  assert part.memory.arguments > num_params(teacher)  # bfloat16 on two
  # Hidden states of half of the batch, in bfloat16.
  assert part.moved == made.tokens * 256 * 2 // 2
  assert made.step_s == max(*made.seconds.values(), *part.seconds.values())
  written = json.loads(json.dumps(made.to_json()))
  assert written["apart"]["teacher"]["memory"]["peak"] == part.memory.peak
  lines = "\n".join(plan_lib.lines(made))
  assert "teacher, on devices of its own: mesh data 1, fsdp 2" in lines
