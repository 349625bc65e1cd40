# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A whole run with its positions divided and its teacher on the hosts."""

import json

import pytest

from jdistill import config, report, sharding, train


@pytest.mark.slow
def test_a_run_is_the_same_wherever_its_arrays_lie(world, tmp_path):
  found, lines = {}, []
  for name, mesh, teacher in (
    ("alone", sharding.MeshShape(1), {}),
    (
      "spread",
      sharding.MeshShape(1, 2, 2, 2),
      {"place": "host", "rules": {"mlp": "fsdp"}},
    ),
  ):
    settings = world.config(
      mesh=mesh,
      teachers={"teacher": config.Teacher(str(world.teacher), **teacher)},
      samples=("The",),
    )
    found[name] = train.train(settings, tmp_path / name, log=lines.append)
  alone, spread = (found[k]["evals"]["eval"] for k in ("alone", "spread"))
  for stage, row in alone.items():
    for key, value in row.items():
      assert spread[stage][key] == pytest.approx(value, rel=1e-4), (stage, key)
  assert any("fsdp 2, expert 1, context 2, tensor 2" in x for x in lines)
  layout = json.loads((tmp_path / "spread" / "shardings.json").read_text())
  assert layout["mesh"]["context"] == 2
  assert layout["totals"]["teacher"]["host_bytes"] > 0
  page = report.write(tmp_path / "spread").read_text()
  assert "Who holds what" in page
  assert "Who holds what" not in report.write(tmp_path / "alone").read_text()
