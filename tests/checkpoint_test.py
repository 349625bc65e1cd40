# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: whole, on any mesh, and never lost by mistake."""

import dataclasses
import errno
import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdistill import checkpoint, sharding, types

AXES = {
  "student": {"w": ("embed", "mlp"), "layers": ({"b": ("mlp",)}, {"b": None})},
  "method": {"map": ("embed", None)},
}


def make(step: int, mesh=(1, 4, 2), **extra) -> types.TrainState:
  """A state as runs have it; every number tells its step."""
  rng = np.random.default_rng(step)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  params = {
    "student": {
      "w": draw(8, 4),
      "layers": ({"b": draw(4)}, {"b": draw(2).astype(jnp.bfloat16)}),
    },
    "method": {"map": draw(8, 3)},
  }
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  state = types.TrainState(
    jnp.asarray(step, jnp.int32),
    params,
    jax.tree.map(lambda x: x + step, optimizer.init(params)),
    {"counts": jnp.full((4,), step, jnp.uint32), **extra},
  )
  made = sharding.make_mesh(sharding.MeshShape(*mesh))
  axes = jax.tree.map(
    lambda p, a: a or (None,) * p.ndim,
    params,
    AXES,
  )
  places = sharding.like(
    state, params, sharding.param_shardings(axes, params, made), made
  )
  return jax.device_put(state, places)


def like(state: types.PyTree) -> types.PyTree:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


def same(found, expected) -> None:
  """To the bit, and where it was asked for."""
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    assert one.dtype == other.dtype
    assert one.sharding == other.sharding
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def position(step: int) -> dict:
  return {"epoch": step // 2, "at": [step, 0], "mixture": {"a": 0.5}}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> pathlib.Path:
  """Six steps, of which two are kept and the best; the third failed."""
  directory = tmp_path_factory.mktemp("run") / "checkpoints"
  kl = {1: 3.0, 2: 1.0, 3: math.nan, 4: 2.0, 5: 2.5}
  with checkpoint.Checkpoints(directory, keep=2, best="eval/kl") as saved:
    for step in range(1, 7):
      row = {"eval/kl": kl[step], "eval/ce": -step * 1.0} if step < 6 else None
      saved.save(step, make(step), position(step), row)
    saved.wait()
    assert saved.steps() == [2, 5, 6]
    assert saved.best() == 2
  return directory


@pytest.fixture
def mine(written, tmp_path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(written, tmp_path / "checkpoints"))


def spoil(directory: pathlib.Path) -> None:
  """Every file is cut in half, as on a full disk."""
  for path in directory.rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
  "mesh", [(1, 4, 2), (8, 1, 1), (2, 2, 2), (1, 1, 1)], ids=str
)
def test_a_state_comes_back_on_any_mesh(written, mesh):
  expected = make(6, mesh)
  with checkpoint.Checkpoints(written, read_only=True) as saved:
    found = saved.restore(6, like(expected))
  assert (found.step, found.position) == (6, position(6))
  same(found.state, expected)


def test_the_newest_and_the_best_stay(written):
  """Neither a value that is no number nor a missing one is the best."""
  assert {p.name for p in written.iterdir() if p.is_dir()} == {"2", "5", "6"}
  with checkpoint.Checkpoints(written, best="eval/kl", read_only=True) as saved:
    assert (saved.steps(), saved.best()) == ([2, 5, 6], 2)


def test_metrics_are_kept_beside_the_state(written):
  (file,) = (written / "2/metrics").glob("metrics")
  assert json.loads(file.read_text()) == {"eval/kl": 1.0, "eval/ce": -2.0}
  assert not (written / "6/metrics").exists()
  with checkpoint.Checkpoints(written, best="eval/ce", read_only=True) as saved:
    assert saved.best() == 5


def test_without_metrics_none_is_the_best(tmp_path):
  with checkpoint.Checkpoints(tmp_path, keep=1, best="eval/kl") as saved:
    for step in (1, 2):
      saved.save(step, make(step), {})
    saved.wait()
    assert (saved.steps(), saved.best()) == ([2], None)


def test_reading_makes_nothing(tmp_path):
  with checkpoint.Checkpoints(tmp_path / "none", read_only=True) as saved:
    assert (saved.steps(), saved.best()) == ([], None)
  assert not (tmp_path / "none").exists()


def test_a_step_that_is_there_is_not_written_again(mine):
  with checkpoint.Checkpoints(mine) as saved:
    saved.save(6, make(60), position(60))
    saved.wait()
    same(saved.restore(6, like(make(6))).state, make(6))


@pytest.mark.parametrize("part", ["state", "position"])
@pytest.mark.parametrize("how", [spoil, shutil.rmtree], ids=["cut", "gone"])
def test_a_damaged_newest_is_told_and_replaced(mine, part, how):
  how(mine / "6" / part)
  with checkpoint.Checkpoints(mine, best="eval/kl") as saved:
    with pytest.raises(types.UserError, match="cannot be read") as damage:
      saved.restore(6, like(make(6)))
    assert str(mine / "6") in str(damage.value)
    assert "\n" not in str(damage.value)
    same(saved.restore(5, like(make(5))).state, make(5))
    assert saved.steps() == [2, 5, 6]  # reading alone removes nothing
    saved.save(6, make(16), position(16))
    saved.wait()
    assert saved.steps() == [2, 5, 6]
    found = saved.restore(6, like(make(6)))
    assert found.position == position(16)
    same(found.state, make(16))


def test_a_damaged_one_goes_when_the_run_has_gone_on(mine):
  spoil(mine / "6")
  with checkpoint.Checkpoints(mine, best="eval/kl") as saved:
    with pytest.raises(types.UserError, match="cannot be read"):
      saved.restore(6, like(make(6)))
    saved.save(7, make(7), position(7))
    saved.wait()
    assert saved.steps() == [2, 5, 7]


def without_moments(state: types.TrainState) -> types.TrainState:
  return dataclasses.replace(state, opt_state={})


def with_average(state: types.TrainState) -> types.TrainState:
  return make(6, ema={"w": state.params["student"]["w"]})


def wider(state: types.TrainState) -> types.TrainState:
  student = state.params["student"] | {"w": jnp.zeros((8, 16))}
  return dataclasses.replace(state, params=state.params | {"student": student})


@pytest.mark.parametrize(
  ("asked", "said"),
  [
    (with_average, "it lacks extra/ema/w. It comes"),
    (without_moments, r"it also has opt_state/1/0/count, .* and \d more\."),
    (wider, r"of another shape is params/student/w \(8, 4\), expected \(8, 16"),
  ],
)
def test_another_layout_is_one_clear_message(mine, asked, said):
  """An older state, say, without a field of today; and it stays."""
  with checkpoint.Checkpoints(mine, best="eval/kl") as saved:
    with pytest.raises(types.UserError, match=said) as refused:
      saved.restore(6, like(asked(make(6))))
    message = str(refused.value)
    assert message.startswith(f"checkpoint {mine / '6'} has other arrays")
    assert "\n" not in message
    assert len(message) < 400
    saved.save(7, make(7), position(7))
    saved.wait()
    assert saved.steps() == [2, 6, 7]
    same(saved.restore(6, like(make(6))).state, make(6))


def test_the_students_parameters_alone(written):
  expected = make(2, (2, 2, 2)).params["student"]
  same(checkpoint.restore_params(written, 2, like(expected)), expected)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"head": jnp.zeros(3)}, "it lacks params/student/head. It"),
    ({"w": jnp.zeros((8, 5))}, r"params/student/w \(8, 4\), expected \(8, 5\)"),
  ],
)
def test_parameters_that_are_not_there_are_named(written, change, said):
  student = make(6, (1, 1, 1)).params["student"]
  with pytest.raises(types.UserError, match=said):
    checkpoint.restore_params(written, 6, like(student | change))
  del student["layers"]
  with pytest.raises(
    types.UserError, match="also has params/student/layers/0/b"
  ):
    checkpoint.restore_params(written, 6, like(student))


@pytest.mark.parametrize("step", [6, 99])
def test_parameters_of_a_damaged_or_missing_step(mine, step):
  spoil(mine / "6")
  student = like(make(6).params["student"])
  with pytest.raises(types.UserError, match=f"{step} cannot be read"):
    checkpoint.restore_params(mine, step, student)


def test_json_is_written_whole(tmp_path):
  path = tmp_path / "result.json"
  checkpoint.dump_json(path, {"a": 1})
  with pytest.raises(TypeError):
    checkpoint.dump_json(path, {"a": object()})
  assert json.loads(path.read_text()) == {"a": 1}
  checkpoint.dump_json(path, {"name": "Grüße"})
  assert "Grüße" in path.read_text()
  assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("RESOURCE_EXHAUSTED: Failed to write [os_error_code='28']"),
  ],
)
def test_a_full_disk_is_one_message(tmp_path, error):
  with (
    pytest.raises(types.UserError, match=r"No space left .* are whole"),
    checkpoint.disk_errors(tmp_path),
  ):
    raise error


@pytest.mark.parametrize(
  "error", [OSError(errno.ENOENT, "gone"), ValueError("of another kind")]
)
def test_other_errors_stay_what_they_are(tmp_path, error):
  with pytest.raises(type(error)) as raised, checkpoint.disk_errors(tmp_path):
    raise error
  assert raised.value is error


def test_links_that_stay_inside_are_fine(tmp_path):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "a").write_text("a")
  (tmp_path / "run" / "b").symlink_to("a")
  checkpoint.check_links(tmp_path / "run")
  (tmp_path / "run" / "c").symlink_to("../run-2")
  with pytest.raises(types.UserError, match=r"run/c is a symbolic link to"):
    checkpoint.check_links(tmp_path / "run")
