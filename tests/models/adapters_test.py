# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jdistill import types
from jdistill.models import adapters

VOCAB = 11


class LinenLM(nn.Module):
  width: int = 6
  give_hidden: bool = False

  @nn.compact
  def __call__(self, tokens, *, deterministic=False):
    table = nn.Embed(VOCAB, self.width, name="table")
    x = table(tokens)
    x = nn.Dropout(0.5, deterministic=deterministic)(x)
    x = nn.tanh(
      nn.Dense(
        self.width,
        kernel_init=nn.with_logical_partitioning(
          nn.initializers.normal(0.5), ("embed", "mlp")
        ),
        name="mix",
      )(x)
    )
    self.sow("intermediates", "twice", 2 * x)
    return (x, None) if self.give_hidden else table.attend(x)


class NNXLM(nnx.Module):
  def __init__(self, width, *, rngs):
    self.table = nnx.Embed(VOCAB, width, rngs=rngs)
    self.layers = nnx.List(
      [
        nnx.Linear(
          width,
          width,
          kernel_init=nnx.with_partitioning(
            nnx.initializers.normal(0.5), ("embed", "mlp")
          ),
          rngs=rngs,
        )
        for _ in range(2)
      ]
    )
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.scale = nnx.Variable(jnp.asarray(1.5))

  def __call__(self, tokens, positions=None):
    x = self.table(tokens)
    if positions is not None:
      x = x + positions[..., None]
    for layer in self.layers:
      x = self.dropout(jnp.tanh(layer(x)))
      self.sow(nnx.Intermediate, "running", x)
    return self.table.attend(x) * self.scale[...]


class LinenNormed(nn.Module):
  @nn.compact
  def __call__(self, inputs, *, train):
    x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(inputs)
    return nn.Dense(3)(x)


class NNXNormed(nnx.Module):
  def __init__(self, *, rngs):
    self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
    self.dense = nnx.Linear(4, 3, rngs=rngs)

  def __call__(self, inputs):
    return self.dense(self.norm(inputs))


def make_nnx_lm(rngs):
  return NNXLM(6, rngs=rngs)


def make_nnx_normed(rngs):
  return NNXNormed(rngs=rngs)


def hidden_and_head(returned, params):
  hidden, _ = returned
  head = types.Head(params["params"]["table"]["embedding"])
  return types.Outputs(hidden, head, {}, {})


def tokens_and_positions(view):
  return (view.tokens,), {"positions": view.positions.astype(jnp.float32)}


@pytest.fixture
def text():
  tokens = jax.random.randint(jax.random.key(3), (2, 5), 0, VOCAB)
  places = jnp.broadcast_to(jnp.arange(5), (2, 5))
  return types.Tokens(
    tokens, tokens, jnp.ones((2, 5)), places, jnp.ones((2, 5), int)
  )


@pytest.fixture
def rows():
  inputs = 2 + jax.random.normal(jax.random.key(4), (8, 4))
  return types.Examples(inputs, jnp.zeros(8, int), jnp.ones(8))


def linen_lm(**kwargs):
  return adapters.LinenArchitecture(
    LinenLM(), kwargs={"deterministic": True}, **kwargs
  )


def run(arch, params, view, want=()):
  return jax.jit(lambda p, v: arch.bind(p)(v, want=want))(params, view)


def test_linen_lm_gives_what_the_module_gives(text):
  arch = linen_lm()
  params = arch.init(jax.random.key(0))
  direct = LinenLM().apply(params, text.tokens, deterministic=True)
  outputs = run(arch, params, text)
  np.testing.assert_allclose(outputs.logits, direct, rtol=1e-5, atol=1e-6)
  assert isinstance(outputs.head, types.IdentityHead)
  assert arch.vocab_size == VOCAB


def test_linen_axes_come_from_the_module_and_init_is_unboxed():
  arch = linen_lm()
  params = arch.init(jax.random.key(0))
  axes = arch.axes()["params"]
  assert axes["mix"] == {"kernel": ("embed", "mlp"), "bias": (None,)}
  assert axes["table"] == {"embedding": (None, None)}
  assert isinstance(params["params"]["mix"]["kernel"], jax.Array)
  chex.assert_trees_all_equal_shapes_and_dtypes(params, arch.shapes())


@pytest.mark.slow
def test_linen_init_needs_no_mesh_of_its_logical_names():
  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  with jax.set_mesh(mesh):
    params = linen_lm().init(jax.random.key(0))
  assert params["params"]["mix"]["kernel"].shape == (6, 6)


def test_hidden_states_and_head_equal_logits(text):
  arch = linen_lm()
  hidden_arch = dataclasses.replace(
    arch, module=LinenLM(give_hidden=True), outputs=hidden_and_head
  )
  params = arch.init(jax.random.key(0))
  outputs = run(hidden_arch, params, text)
  assert outputs.hidden.shape == (2, 5, 6)
  assert hidden_arch.vocab_size == VOCAB
  np.testing.assert_allclose(
    outputs.logits, run(arch, params, text).logits, rtol=1e-5, atol=1e-6
  )


def test_linen_features_are_captured_or_sown(text):
  arch = linen_lm()
  params = arch.init(jax.random.key(0))
  want = ("intermediates/mix", "intermediates/twice")
  features = run(arch, params, text, want).features
  weights = params["params"]
  x = weights["table"]["embedding"][text.tokens]
  x = x @ weights["mix"]["kernel"] + weights["mix"]["bias"][None, None]
  np.testing.assert_allclose(features[want[0]], x, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    features[want[1]], 2 * jnp.tanh(x), rtol=1e-5, atol=1e-6
  )
  assert run(arch, params, text).features == {}


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_an_unknown_feature_is_named_with_those_there_are(kind, text):
  arch = (
    linen_lm() if kind == "linen" else adapters.NNXArchitecture(make_nnx_lm)
  )
  with pytest.raises(types.UserError, match=r"'intermediates/no'.*/table"):
    arch.bind(arch.init(jax.random.key(0)))(text, ("intermediates/no",))


def test_nnx_lm_gives_what_the_module_gives(text):
  arch = adapters.NNXArchitecture(make_nnx_lm)
  params = arch.init(jax.random.key(7))
  with nnx.use_eager_sharding(False):
    module = make_nnx_lm(nnx.Rngs(jax.random.key(7)))
  module.eval()
  direct, _ = nnx.capture(module, nnx.Intermediate)(text.tokens)
  np.testing.assert_allclose(
    run(arch, params, text).logits, direct, rtol=1e-5, atol=1e-6
  )
  assert arch.vocab_size == VOCAB
  assert sorted(params) == ["Variable", "params"]


def test_nnx_inputs_take_other_fields_of_the_view(text):
  plain = adapters.NNXArchitecture(make_nnx_lm)
  arch = dataclasses.replace(plain, inputs=tokens_and_positions)
  params = arch.init(jax.random.key(7))
  with nnx.use_eager_sharding(False):
    module = make_nnx_lm(nnx.Rngs(jax.random.key(7)))
  module.eval()
  positions = text.positions.astype(jnp.float32)
  direct, _ = nnx.capture(module, nnx.Intermediate)(text.tokens, positions)
  logits = run(arch, params, text).logits
  np.testing.assert_allclose(logits, direct, rtol=1e-5, atol=1e-6)
  assert jnp.abs(logits - run(plain, params, text).logits).max() > 1e-2


def test_nnx_axes_and_trainable():
  arch = adapters.NNXArchitecture(make_nnx_lm)
  assert arch.axes()["params"]["layers"]["1"] == {
    "kernel": ("embed", "mlp"),
    "bias": (None,),
  }
  trainable = arch.trainable()
  assert trainable["params"]["layers"]["0"]["kernel"] is True
  assert trainable["Variable"]["scale"] is False
  chex.assert_trees_all_equal_structs(trainable, arch.shapes())


def test_nnx_features(text):
  arch = adapters.NNXArchitecture(make_nnx_lm)
  params = arch.init(jax.random.key(0))
  want = ("intermediates/layers/0",)
  features = run(arch, params, text, want).features
  layer = params["params"]["layers"]["0"]
  x = params["params"]["table"]["embedding"][text.tokens]
  x = x @ layer["kernel"] + layer["bias"][None, None]
  np.testing.assert_allclose(features[want[0]], x, rtol=1e-5, atol=1e-6)
  with pytest.raises(types.UserError, match="produced 2 times"):
    arch.bind(params)(text, ("intermediates/running",))


def test_architectures_hash_by_value_and_compile_once(text):
  arch = linen_lm()
  assert hash(arch) == hash(linen_lm())
  assert arch == linen_lm()

  def call(arch, params, view):
    return arch.bind(params)(view).hidden

  call = jax.jit(chex.assert_max_traces(call, n=1), static_argnums=0)
  params = arch.init(jax.random.key(0))
  call(arch, params, text)
  call(linen_lm(), params, text)


def normed(kind, train):
  updates = ("batch_stats",) if train else ()
  shared = {"kind": "inputs", "shape": (4,), "mutable": updates}
  if kind == "nnx":
    return adapters.NNXArchitecture(make_nnx_normed, **shared)
  return adapters.LinenArchitecture(
    LinenNormed(), kwargs={"train": train}, **shared
  )


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_batch_statistics_of_student_and_teacher(kind, rows):
  student, teacher = normed(kind, True), normed(kind, False)
  params = student.init(jax.random.key(0))
  x = np.asarray(rows.inputs, np.float64)
  name, dense = (
    ("BatchNorm_0", "Dense_0") if kind == "linen" else ("norm", "dense")
  )
  dense = params["params"][dense]

  def logits(mean, var):
    normal = (x - mean) / np.sqrt(var + 1e-5)
    return normal @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])

  taught = run(teacher, params, rows)
  np.testing.assert_allclose(taught.logits, logits(0, 1), rtol=1e-4, atol=1e-4)
  assert taught.updates == {}

  learned = run(student, params, rows)
  batch = (x.mean(0), x.var(0))
  np.testing.assert_allclose(
    learned.logits, logits(*batch), rtol=1e-4, atol=1e-4
  )
  after = learned.updates["batch_stats"]
  chex.assert_trees_all_equal_shapes(after, params["batch_stats"])
  np.testing.assert_allclose(after[name]["mean"], batch[0] / 2, rtol=1e-4)
  np.testing.assert_allclose(after[name]["var"], (1 + batch[1]) / 2, rtol=1e-4)

  # What was updated is what the next call reads.
  moved = {**params, **learned.updates}
  np.testing.assert_allclose(
    run(teacher, moved, rows).logits,
    logits(batch[0] / 2, (1 + batch[1]) / 2),
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_gradients_reach_parameters_only(kind, rows):
  arch = normed(kind, False)
  params = arch.init(jax.random.key(0))
  grads = jax.grad(lambda p: (arch.bind(p)(rows).logits ** 2).sum())(params)
  assert all(not g.any() for g in jax.tree.leaves(grads["batch_stats"]))
  assert all(g.any() for g in jax.tree.leaves(grads["params"]))


def affine(params, inputs):
  return inputs @ params["w"]


def draw_affine(key):
  return {"w": jnp.round(8 * jax.random.normal(key, (4, 3))) / 8}


def fixed_logits(params, inputs):
  del params
  return jnp.concatenate([inputs, -inputs], axis=-1)


def test_functions_with_and_without_parameters(rows):
  shared = {"kind": "inputs", "shape": (4,)}
  arch = adapters.FunctionArchitecture(affine, draw_affine, **shared)
  params = arch.init(jax.random.key(0))
  # Eighths: the products and their sums are exact in float32.
  rows = dataclasses.replace(rows, inputs=jnp.round(8 * rows.inputs) / 8)
  np.testing.assert_array_equal(
    run(arch, params, rows).logits,
    np.asarray(rows.inputs) @ np.asarray(params["w"]),
  )
  assert arch.vocab_size == 3
  assert arch.axes() == {"w": (None, None)}
  assert arch.trainable() == {"w": True}
  free = adapters.FunctionArchitecture(fixed_logits, **shared)
  assert free.init(jax.random.key(0)) == {}
  assert run(free, {}, rows).logits.shape == (8, 8)


def test_faults_are_named(text):
  arch = dataclasses.replace(linen_lm(), module=LinenLM(give_hidden=True))
  with pytest.raises(types.UserError, match=r"returned a tuple.*outputs="):
    arch.bind(arch.init(jax.random.key(0)))(text)
  with pytest.raises(types.UserError, match="mutable"):
    adapters.FunctionArchitecture(affine, mutable=("batch_stats",))


class Careless(nnx.Module):
  def __init__(self, rngs):
    self.dense = nnx.Linear(4, 3, rngs=rngs)
    self.shift = jnp.ones(4)

  def __call__(self, inputs):
    return self.dense(inputs + self.shift[None])


class Careful(Careless):
  def __init__(self, rngs):
    self.dense = nnx.Linear(4, 3, rngs=rngs)
    self.shift = nnx.data(jnp.ones(4))


def test_plain_arrays_in_nnx_modules(rows):
  shared = {"kind": "inputs", "shape": (4,)}
  with pytest.raises(types.UserError, match=r"nnx\.data"):
    _ = adapters.NNXArchitecture(Careless, **shared).vocab_size
  arch = adapters.NNXArchitecture(Careful, **shared)
  params = arch.init(jax.random.key(0))
  assert params["constants"]["shift"].shape == (4,)
  params["constants"]["shift"] = jnp.full(4, 2.0)
  dense = params["params"]["dense"]
  np.testing.assert_allclose(
    run(arch, params, rows).logits,
    (rows.inputs + 2.0) @ dense["kernel"] + dense["bias"][None],
    rtol=1e-5,
    atol=1e-6,
  )
