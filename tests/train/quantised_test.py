# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs whose teacher is stored in fewer bits, on a mesh of eight devices."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import cli, config, pretrained, run, sharding, train, types

MESH = sharding.MeshShape(data=2, fsdp=2, tensor=2)


def stored(world, weights, **changes):
  teacher = config.Teacher(str(world.teacher), weights=weights)
  return world.config(teachers={"teacher": teacher}, **changes)


def built(cfg):
  shape = (cfg.data.batch_size, cfg.data.seq_len)
  whole = jax.ShapeDtypeStruct(shape, jnp.int32)
  floats = jax.ShapeDtypeStruct(shape, jnp.float32)
  view = types.Tokens(whole, whole, floats, whole, whole)
  ids = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
  batch = types.Batch({"student": view}, {}, ids)
  return run.build(cfg, run.find_models(cfg), batch)


@pytest.mark.slow
def test_teaches_on_a_mesh(world, tmp_path):
  cfg = stored(world, "int8", mesh=MESH, samples=("The statement",))
  result = train.train(cfg, tmp_path / "run", log=lambda line: None)
  evals = result["evals"]["eval"]
  assert evals["end"]["kl"] < evals["start"]["kl"]
  [row] = json.loads((tmp_path / "run/samples/continuations.json").read_text())
  assert row["teacher"]


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_a_cut_student_starts_from_what_the_file_says(world, weights):
  one = built(stored(world, weights, mesh=MESH))
  with jax.set_mesh(one.mesh):
    params = one.load_teachers()
    state = one.init_state(params)
  up = params["teacher"]["segment_0"]["mlp"]["up"]["kernel"]
  assert jax.tree.leaves(up)[0].dtype == jnp.dtype(weights)
  full = pretrained.find(str(world.teacher)).params()
  expected = jax.tree.map(lambda x: x[np.array([0, 2])], full["segment_0"])
  jax.tree.map(
    np.testing.assert_array_equal,
    state.params["student"]["segment_0"],
    expected,
  )


def test_students_are_not_stored_in_int8(world):
  shape = pretrained.find(str(world.teacher)).architecture
  shape = dataclasses.replace(shape, kernels="int8")
  with pytest.raises(types.UserError, match=r"student: .*int8"):
    run.find_models(world.config(student=config.Fresh(shape)))


@pytest.mark.slow
def test_the_cost_of_storage_is_measured(world, capsys):
  ref = str(world.teacher)
  found = {}
  for weights in ("float32", "bfloat16", "int8"):
    argv = ["evaluate", ref, "--teacher", ref, "--data", world.text]
    argv += ["--weights", weights, "--seq-len", "16", "--max-rows", "4"]
    assert cli.main(argv) == 0
    found[weights] = json.loads(capsys.readouterr().out.splitlines()[-1])["kl"]
  assert found["float32"] == pytest.approx(0, abs=1e-7)
  assert 0 < found["bfloat16"] < found["int8"] < 1
