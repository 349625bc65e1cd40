# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx
from flax.training import train_state

from jdistill import sharding, types
from jdistill.models import adapters, classifier
from jdistill.models.weights.orbax import load_orbax


class LinenNet(nn.Module):
  width: int = 6

  @nn.compact
  def __call__(self, inputs):
    x = nn.Dense(self.width)(inputs)
    x = nn.BatchNorm(use_running_average=True)(x)
    return nn.Dense(3)(x)


class NNXNet(nnx.Module):
  def __init__(self, rngs):
    self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, inputs):
    for layer in self.layers:
      inputs = self.dropout(layer(inputs))
    return self.norm(inputs)


def linen(width=6):
  return adapters.LinenArchitecture(LinenNet(width), kind="inputs", shape=(4,))


def distinct(tree):
  """Every number of the tree another one, so that no two can be swapped."""
  leaves, structure = jax.tree.flatten(tree)
  ends = np.cumsum([leaf.size for leaf in leaves])
  return jax.tree.unflatten(
    structure,
    [
      jnp.arange(end - leaf.size, end, dtype=leaf.dtype).reshape(leaf.shape)
      for leaf, end in zip(leaves, ends, strict=True)
    ],
  )


def variables():
  return distinct(linen().init(jax.random.key(0)))


def save(path, tree):
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, tree)


def save_standard(path):
  save(path / "it", variables())
  return path / "it"


def save_pytree_with_state(path):
  tree = variables()
  state = train_state.TrainState.create(
    apply_fn=lambda: None, params=tree["params"], tx=optax.adam(1e-3)
  )
  tree = {"model": tree, "opt_state": state.opt_state, "step": 3}
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(path / "it", tree)
  return path / "it"


def save_manager(path):
  with ocp.CheckpointManager(path / "it") as manager:
    for step, scale in ((5, 0), (10, 1), (9, 0)):
      tree = jax.tree.map(lambda x, scale=scale: x * scale, variables())
      manager.save(step, args=ocp.args.StandardSave(tree), force=True)
      manager.wait_until_finished()
  return path / "it"


def save_one_step(path):
  return save_manager(path) / "10"


def save_composite(path):
  with ocp.CheckpointManager(path / "it") as manager:
    args = ocp.args.Composite(
      state=ocp.args.StandardSave({"params": variables()}),
      notes=ocp.args.JsonSave({"seen": 3}),
    )
    manager.save(7, args=args)
  return path / "it"


def save_flax_steps(path):
  for step, scale in ((9, 0), (10, 1)):
    tree = jax.tree.map(lambda x, scale=scale: x * scale, variables())
    save(path / "it" / f"checkpoint_{step}", {"target": tree, "step": step})
  return path / "it"


@pytest.mark.parametrize(
  "write",
  [
    save_standard,
    save_pytree_with_state,
    save_manager,
    save_one_step,
    save_composite,
    save_flax_steps,
  ],
)
def test_layouts_of_a_linen_model(write, tmp_path):
  restored = load_orbax(str(write(tmp_path)), linen())
  chex.assert_trees_all_equal(restored, variables())
  chex.assert_trees_all_equal_shapes_and_dtypes(restored, linen().shapes())


def test_train_state_prefers_parameters_to_moments(tmp_path):
  arch = classifier.MLPConfig(shape=(4,), widths=(3,))
  params = distinct(arch.init(jax.random.key(0)))
  state = train_state.TrainState.create(
    apply_fn=lambda: None, params=params, tx=optax.adam(1e-3)
  )
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "it", state)
  chex.assert_trees_all_equal(load_orbax(str(tmp_path / "it"), arch), params)


@pytest.mark.parametrize("form", ["state", "pure", "under model"])
def test_nnx_state(form, tmp_path):
  with nnx.use_eager_sharding(False):
    module = NNXNet(nnx.Rngs(3))
  state = nnx.state(module, nnx.Not(nnx.RngState))
  nnx.update(module, distinct(state))
  state = nnx.state(module, nnx.Not(nnx.RngState))
  tree = nnx.to_pure_dict(state) if form == "pure" else state
  save(tmp_path / "it", {"model": tree} if form == "under model" else tree)
  arch = adapters.NNXArchitecture(NNXNet, kind="inputs", shape=(4,))
  restored = load_orbax(str(tmp_path / "it"), arch)
  inputs = jax.random.normal(jax.random.key(0), (2, 4))
  view = types.Examples(inputs, jnp.zeros(2, int), jnp.ones(2))
  module.eval()
  np.testing.assert_allclose(
    arch.bind(restored)(view).logits, module(inputs), rtol=1e-6
  )
  np.testing.assert_array_equal(
    restored["batch_stats"]["norm"]["mean"], module.norm.mean[...]
  )


def test_parameters_land_on_their_shardings_in_their_dtype(tmp_path):
  arch = classifier.MLPConfig(classes=8, shape=(16,), widths=(16,))
  params = distinct(arch.init(jax.random.key(0)))
  half = jax.tree.map(lambda x: (x % 97).astype(jnp.bfloat16), params)
  save(tmp_path / "it", half)
  mesh = sharding.make_mesh(sharding.MeshShape(data=1, fsdp=4, tensor=2))
  shardings = sharding.param_shardings(arch.axes(), arch.shapes(), mesh)
  restored = load_orbax(str(tmp_path / "it"), arch, shardings=shardings)
  kernel = restored["layers"]["0"]["kernel"]
  assert kernel.dtype == jnp.float32
  assert kernel.sharding == shardings["layers"]["0"]["kernel"]
  assert kernel.addressable_shards[0].data.shape == (4, 8)
  chex.assert_trees_all_equal(
    restored, jax.tree.map(lambda x: x.astype(jnp.float32), half)
  )


def test_floats_are_cast_and_other_numbers_left_alone(tmp_path):
  arch = adapters.FunctionArchitecture(matmul, draw_with_count)
  params = distinct(arch.init(jax.random.key(0)))
  save(tmp_path / "it", params)
  restored = load_orbax(tmp_path / "it", arch, dtype="bfloat16")
  assert restored["w"].dtype == jnp.bfloat16
  assert restored["count"].dtype == jnp.int32
  chex.assert_trees_all_equal(
    restored, {**params, "w": params["w"].astype(jnp.bfloat16)}
  )


def test_two_sets_of_parameters_have_to_be_told_apart(tmp_path):
  tree = variables()
  doubled = jax.tree.map(lambda x: 2 * x, tree)
  save(tmp_path / "it", {"slow": doubled, "fast": tree})
  path = str(tmp_path / "it")
  with pytest.raises(types.UserError, match=r"'fast' and 'slow'.*under="):
    load_orbax(path, linen())
  restored = load_orbax(path, linen(), under="slow")
  chex.assert_trees_all_equal(restored, doubled)


def test_other_shapes_are_named(tmp_path):
  path = str(save_standard(tmp_path))
  message = r"BatchNorm_0/mean is \(6,\), expected \(5,\).*4 more"
  with pytest.raises(types.UserError, match=message):
    load_orbax(path, linen(5))


def test_missing_parameters_are_named(tmp_path):
  tree = variables()
  del tree["params"]["Dense_1"]["bias"]
  save(tmp_path / "it", tree)
  message = r"1 of 8 parameters are missing.*'params/Dense_1/bias'"
  with pytest.raises(types.UserError, match=message):
    load_orbax(str(tmp_path / "it"), linen())


def test_no_checkpoint(tmp_path):
  with pytest.raises(types.UserError, match="no such directory"):
    load_orbax(str(tmp_path / "nowhere"), linen())
  (tmp_path / "notes.txt").write_text("hello")
  with pytest.raises(types.UserError, match=r"holds: notes\.txt"):
    load_orbax(str(tmp_path), linen())
  with pytest.raises(types.UserError, match="found a file"):
    load_orbax(str(tmp_path / "notes.txt"), linen())


def draw_one(key):
  return {"w": jax.random.normal(key, (4, 3))}


def draw_with_count(key):
  return {**draw_one(key), "count": jnp.zeros((3,), jnp.int32)}


def matmul(params, inputs):
  return inputs @ params["w"]


@pytest.mark.parametrize("damage", ["metadata", "arrays"])
def test_damaged_checkpoint(damage, tmp_path):
  # One array only: of several reads, those under way when the first fails
  # would complain about Orbax's closed event loop in some later test.
  arch = adapters.FunctionArchitecture(matmul, draw_one)
  save(tmp_path / "it", arch.init(jax.random.key(0)))
  path = tmp_path / "it"
  if damage == "metadata":
    (path / "_METADATA").write_text("{")
  else:
    for file in (*path.glob("ocdbt.process_0/d/*"), *path.glob("d/*")):
      file.write_bytes(file.read_bytes()[:20])
  with pytest.raises(types.UserError, match="cannot be read"):
    load_orbax(str(path), arch)
