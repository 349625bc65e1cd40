# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""One of several stages is planned from the shapes of those before it."""

import json
import pathlib

import pytest

from jdistill import cli, config, placement, types
from jdistill import plan as plan_lib
from jdistill.models.base import num_params

THREE = pathlib.Path(__file__).with_name("three.py")


def size(layers: int) -> int:
  """Bytes of a model of the three, in float32."""
  student = config.load(THREE).stages["first"].teachers["teacher"].architecture
  segments = (type(student.segments[0]).uniform(layers),)
  shape = type(student)(**vars(student) | {"segments": segments})
  return 4 * num_params(shape.shapes())


def totals(name=None) -> dict[str, int]:
  one, beside = plan_lib.stage(config.load(THREE), name)
  found = placement.layout(one, devices=4, beside=beside)
  return {k: total["bytes"] for k, total in found["totals"].items()}


def test_a_stage_holds_what_the_stages_before_hand_on():
  adapted, last = totals("adapted"), totals()
  assert adapted["teacher"] == adapted["before"] == size(4)
  assert adapted["student"] > size(4)
  assert last["student"] == size(2)
  assert size(4) / 4 < last["teacher"] < size(4) / 2


def test_its_step_lowers():
  one, beside = plan_lib.stage(config.load(THREE), "adapted")
  made = plan_lib.lower(one, plan_lib.parse("gpu:4"), beside=beside)
  assert made.flops.student > 0
  assert made.flops.teacher > 0


def test_no_such_stage():
  stages = config.load(THREE)
  with pytest.raises(types.UserError, match="stages are first, adapted, last"):
    plan_lib.stage(stages, "fist")
  with pytest.raises(types.UserError, match="the config has no stages"):
    plan_lib.stage(stages.stages["first"], "first")


def test_the_commands_take_a_stage(capsys):
  flags = ["--stage", "adapted", "--adapted.mesh.fsdp", "4", "--json"]
  cli.main(["shardings", str(THREE), "--devices", "8", *flags])
  found = json.loads(capsys.readouterr().out)
  assert found["mesh"]["fsdp"] == 4
  assert found["totals"]["before"]["bytes"] == size(4)
  flags = ["--last.mesh.data", "1", "--last.mesh.fsdp", "4"]
  assert cli.main(["plan", str(THREE), "--topology", "gpu:4", *flags]) == 0
  assert "fsdp 4" in capsys.readouterr().out
