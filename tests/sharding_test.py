# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Eight devices in any shape, and who holds what."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jdistill import sharding, types
from jdistill.models import DecoderConfig, Segment

RULES = sharding.DEFAULT_RULES


def mesh(data: int, fsdp: int, tensor: int, expert: int = 1):
  return sharding.make_mesh(
    sharding.MeshShape(data, fsdp, tensor, expert=expert)
  )


def own(array: jax.Array) -> tuple[int, ...]:
  """The shape of what one device holds."""
  (shape,) = {shard.data.shape for shard in array.addressable_shards}
  return shape


@pytest.mark.parametrize(
  ("asked", "sizes"),
  [
    ((-1, 1, 1), (8, 1, 1)),
    ((1, -1, 2), (1, 4, 2)),
    ((2, 2, -1), (2, 2, 2)),
    ((8, -1, 1), (8, 1, 1)),
    ((2, 1, 4), (2, 1, 4)),
    ((-1, 1, 1, 4), (2, 1, 1, 4)),
    ((1, 2, 2, 2), (1, 2, 2, 2)),
  ],
  ids=str,
)
def test_sizes_multiply_to_the_devices(asked, sizes):
  made = mesh(*asked)
  names = ("data", "fsdp", "tensor", "expert")
  found = dict.fromkeys(sharding.AXES, 1)
  found |= dict(zip(names, sizes, strict=False))
  assert dict(made.shape) == found
  assert set(made.devices.flat) == set(jax.devices())
  assert set(made.axis_types) == {AxisType.Auto}


def test_the_default_copies_the_parameters():
  assert sharding.make_mesh(sharding.MeshShape()).shape["data"] == 8


def test_ones_alone_are_one_device():
  assert list(mesh(1, 1, 1).devices.flat) == jax.devices()[:1]


def test_some_of_the_devices():
  few = jax.devices()[2:6]
  made = sharding.make_mesh(sharding.MeshShape(fsdp=2), few)
  sizes = dict.fromkeys(sharding.AXES, 1) | {"data": 2, "fsdp": 2}
  assert dict(made.shape) == sizes
  assert set(made.devices.flat) == set(few)


@pytest.mark.parametrize(
  "asked",
  [
    (3, 1, 1),
    (2, 2, 1),
    (16, 1, 1),
    (-1, 3, 1),
    (-1, -1, 1),
    (0, 1, 1),
    (-1, 0, 1),
    (-2, 1, -4),
  ],
  ids=str,
)
def test_other_sizes_are_refused(asked):
  with pytest.raises(types.UserError) as refused:
    mesh(*asked)
  said = str(refused.value)
  assert "does not fit 8 devices" in said
  assert f"'data': {asked[0]}, 'fsdp': {asked[1]}" in said
  assert "at most one -1" in said


@pytest.mark.parametrize(
  ("shape", "message"),
  [
    (sharding.MeshShape(slices=2), "cpu devices .* are in no slices; take 1"),
    (sharding.MeshShape(2, -1, slices=4), "does not divide mesh.data 2"),
    (sharding.MeshShape(slices=0), "slices is 0"),
  ],
)
def test_slices_that_are_not_there_are_refused(shape, message):
  with pytest.raises(types.UserError, match=message):
    sharding.make_mesh(shape)


def test_slices_may_be_planned():
  made = sharding.make_mesh(sharding.MeshShape(-1, 128, slices=2), 512)
  assert dict(made.shape) == dict.fromkeys(sharding.AXES, 1) | {
    "data": 4,
    "fsdp": 128,
  }


@pytest.mark.parametrize(
  ("axes", "shape", "expected"),
  [
    (("vocab", "embed"), (16, 8), P("tensor", "fsdp")),
    (("layers", "embed", "mlp"), (3, 8, 4), P(None, "fsdp", "tensor")),
    (("embed", "heads", "head_dim"), (8, 2, 5), P("fsdp", "tensor")),
    (("embed", None), (8, 8), P("fsdp")),
    ((None, "layers"), (8, 8), P()),
    (("layers", "expert", "embed"), (3, 4, 8), P(None, "expert", "fsdp")),
    ((), (), P()),
  ],
  ids=str,
)
def test_logical_axes_go_where_the_rules_say(axes, shape, expected):
  assert sharding.spec(axes, shape, mesh(2, 2, 2), RULES) == expected


def test_what_does_not_divide_is_whole_on_every_device():
  made = mesh(1, 4, 2)
  assert sharding.spec(("vocab", "embed"), (31, 8), made, RULES) == P(
    None, "fsdp"
  )
  assert sharding.spec(("vocab", "embed"), (32, 6), made, RULES) == P("tensor")
  assert sharding.spec(("kv_heads",), (1,), made, RULES) == P()


def test_a_mesh_axis_serves_the_first_that_asks_and_fits():
  made = mesh(1, 4, 2)
  assert sharding.spec(("heads", "mlp"), (4, 4), made, RULES) == P("tensor")
  assert sharding.spec(("heads", "mlp"), (3, 4), made, RULES) == P(
    None, "tensor"
  )


def test_rules_can_be_changed():
  rules = {**RULES, "embed": None, "mlp": "data", "vocab": "elsewhere"}
  made = mesh(2, 2, 2)
  assert sharding.spec(("embed", "mlp"), (8, 8), made, rules) == P(None, "data")
  # An axis that this mesh does not have divides nothing.
  assert sharding.spec(("vocab", "embed"), (8, 8), made, rules) == P()


def test_a_rule_may_name_several_axes():
  made = sharding.make_mesh(sharding.MeshShape(1, 2, 2, 2))
  find = lambda *args: sharding.spec(*args, made, RULES)  # noqa: E731
  assert find(("embed", "mlp"), (8, 8)) == P(("fsdp", "context"), "tensor")
  assert find(("embed", "mlp"), (6, 8)) == P("fsdp", "tensor")
  assert find(("embed",), (5,)) == P()
  assert sharding.spec(("embed",), (8,), mesh(2, 2, 2), RULES) == P("fsdp")


def test_what_does_not_divide_is_named_with_the_sizes_that_would():
  made = sharding.make_mesh(sharding.MeshShape(1, 2, 2, 2))
  axes = {"a": ("embed", "mlp"), "b": ("embed",), "c": ("vocab",)}
  shapes = {"a": jnp.zeros((6, 4)), "b": jnp.zeros(6), "c": jnp.zeros(31)}
  assert [str(u) for u in sharding.uneven(axes, shapes, made, RULES)] == [
    "embed 6 does not divide over fsdp+context 4 and is in 2 parts (a and 1 "
    "more); 4 or 8 would divide, or fsdp+context 1 or 2 or 3",
    "vocab 31 does not divide over tensor 2 and is whole on every device (c); "
    "30 or 32 would divide, or tensor 1",
  ]
  assert not sharding.uneven(axes, shapes, mesh(8, 1, 1), RULES)


def test_each_device_holds_its_part_of_a_model():
  """22 is no multiple of 4, so `mlp` stays whole; all else is divided."""
  model = DecoderConfig(
    vocab_size=32,
    width=16,
    mlp_width=22,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    segments=(Segment.uniform(2),),
  )
  params = jax.tree.map(lambda s: jnp.ones(s.shape), model.shapes())
  places = sharding.param_shardings(model.axes(), params, mesh(1, 2, 4))
  placed = jax.device_put(params, places)
  embedding = placed["embedding"]["weight"]
  assert (embedding.shape, own(embedding)) == ((32, 16), (8, 8))
  for axes, array in zip(
    jax.tree.leaves(model.axes(), is_leaf=lambda a: isinstance(a, tuple)),
    jax.tree.leaves(placed),
    strict=True,
  ):
    part = {"embed": 2, "vocab": 4, "heads": 4, "kv_heads": 4}
    expected = tuple(
      n // part.get(a, 1) for a, n in zip(axes, array.shape, strict=True)
    )
    assert own(array) == expected, axes
  jax.tree.map(np.testing.assert_array_equal, params, placed)


def test_experts_are_divided_over_an_axis_of_their_own():
  made = mesh(1, 2, 1, 4)
  axes = ("layers", "expert", "embed", "mlp")
  expected = P(None, "expert", "fsdp", "tensor")
  assert sharding.spec(axes, (3, 8, 8, 6), made, RULES) == expected
  assert sharding.num_row_shards(made) == 8
  placed = sharding.place_rows(np.arange(16), made)
  held = {s.device: s.data.tolist() for s in placed.addressable_shards}
  for at, device in np.ndenumerate(made.devices):
    first = 2 * (4 * at[1] + at[2])
    assert held[device] == [first, first + 1]


def test_rows_are_not_divided_over_tensor():
  made = mesh(2, 2, 2)
  tree = {"x": np.arange(16).reshape(8, 2), "id": np.arange(8)}
  placed = sharding.place_rows(tree, made)
  assert sharding.num_row_shards(made) == 4
  assert own(placed["x"]) == (2, 2)
  assert own(placed["id"]) == (2,)
  jax.tree.map(np.testing.assert_array_equal, tree, placed)
  held = {s.device: s.data[0] for s in placed["id"].addressable_shards}
  for at, device in np.ndenumerate(made.devices):
    assert held[device] == 2 * (2 * at[0] + at[1])


def test_positions_are_divided_over_context():
  made = sharding.make_mesh(sharding.MeshShape(1, 2, 1, 4))
  rows = np.arange(4 * 8).reshape(4, 8)
  view = types.Tokens(rows, rows, rows, rows, rows)
  batch = types.Batch(
    {"student": view, "labels": types.Examples(rows, rows[:, 0], rows[:, 0])},
    {"scores": rows},
    rows[:, 0],
  )
  placed = sharding.place_rows(batch, made)
  assert {own(x) for x in jax.tree.leaves(placed["student"])} == {(2, 2)}
  assert own(placed["labels"].inputs) == own(placed.data["scores"]) == (2, 8)
  assert own(placed.example_id) == (2,)
  jax.tree.map(np.testing.assert_array_equal, batch, placed)


def params_and_places(made):
  params = {
    "student": {"w": jnp.zeros((8, 4)), "b": jnp.zeros(4)},
    "method": {"w": jnp.zeros((8, 4)), "map": {"w": jnp.zeros((4, 4))}},
  }
  axes = {
    "student": {"w": ("embed", "mlp"), "b": ("mlp",)},
    "method": {"w": (None, None), "map": {"w": ("embed", None)}},
  }
  return params, sharding.param_shardings(axes, params, made)


def test_moments_lie_where_their_parameters_do():
  made = mesh(1, 4, 2)
  params, places = params_and_places(made)
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.partition(
      {"a": optax.adamw(1e-3), "b": optax.sgd(1.0, momentum=0.9)},
      {"student": {"w": "a", "b": "b"}, "method": "a"},
    ),
  )
  state = optimizer.init(params)
  found = sharding.like(state, params, places, made)
  moments = 0
  for (path, leaf), place in zip(
    jax.tree.leaves_with_path(state), jax.tree.leaves(found), strict=True
  ):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    expected = sharding.replicated(made)
    for known, own_place in jax.tree.leaves_with_path(places):
      if name.endswith(
        "/" + jax.tree_util.keystr(known, simple=True, separator="/")
      ):
        expected = own_place
        moments += 1
    assert place == expected, (name, leaf.shape)
  assert moments == 7  # two of Adam for each of three, one of momentum


def test_another_shape_under_the_same_name_is_whole():
  """Factored moments, say: rows and columns instead of the matrix."""
  made = mesh(1, 4, 2)
  params, places = params_and_places(made)
  tree = {"v_row": {"student": {"w": jnp.zeros(8)}}, "count": jnp.zeros(())}
  found = sharding.like(tree, params, places, made)
  assert set(jax.tree.leaves(found)) == {sharding.replicated(made)}


def test_an_average_of_weights_is_divided_like_the_weights():
  """It is a copy of the student alone, without that name on its path."""
  made = mesh(1, 4, 2)
  params, places = params_and_places(made)
  tree = {"ema": {"b": params["student"]["b"], "map": params["method"]["map"]}}
  found = sharding.like(tree, params, places, made)
  assert found["ema"]["b"] == places["student"]["b"]
  assert found["ema"]["map"] == places["method"]["map"]


def test_two_branches_that_disagree_leave_a_copy_whole():
  made = mesh(1, 4, 2)
  params, places = params_and_places(made)
  found = sharding.like({"ema": params["student"]}, params, places, made)
  assert places["student"]["w"] != places["method"]["w"]
  assert found["ema"]["w"] == sharding.replicated(made)
  assert found["ema"]["b"] == places["student"]["b"]
