# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Optimizers against plain NumPy, Muon's matrices, groups, freeze masks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdistill import optim, paths, schedules, types
from jdistill.models import DecoderConfig, Segment

SPEC = DecoderConfig(
  vocab_size=20,
  width=8,
  mlp_width=12,
  num_heads=2,
  num_kv_heads=1,
  head_dim=4,
  segments=(Segment.uniform(3),),
  qkv_bias=True,
)
ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-8}


def draw(tree, seed):
  leaves, treedef = jax.tree.flatten(tree)
  rng = np.random.default_rng(seed)
  values = [rng.normal(size=x.shape).astype(np.float32) for x in leaves]
  return jax.tree.unflatten(treedef, [jnp.asarray(v) for v in values])


def one_update(optimizer, axes, params, grads):
  chain = optim.make(optimizer, axes)
  return chain.update(grads, chain.init(params), params)[0]


def adamw(params, grads, rates, decay):
  """AdamW of Loshchilov & Hutter, Algorithm 2, in float64."""
  p, m, v = np.float64(params), 0.0, 0.0
  for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
    g = np.float64(g)
    m = ADAM["b1"] * m + (1 - ADAM["b1"]) * g
    v = ADAM["b2"] * v + (1 - ADAM["b2"]) * g * g
    unbiased = (m / (1 - ADAM["b1"] ** t)) / (
      np.sqrt(v / (1 - ADAM["b2"] ** t)) + ADAM["eps"]
    )
    p = p - rate * (unbiased + decay * p)
  return p


def test_adamw_follows_its_paper():
  axes = {"w": ("embed", "mlp"), "b": ("mlp",)}
  params = draw({"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}, 0)
  rates = schedules.Linear(1e-2, 0.0, 4)
  chain = optim.make(
    optim.AdamW(lr=rates, weight_decay=0.1, clip_norm=None), axes
  )
  grads = [draw(params, seed) for seed in (1, 2, 3)]
  state, now = chain.init(params), params
  for g in grads:
    updates, state = chain.update(g, state, now)
    now = optax.apply_updates(now, updates)
  used = [1e-2 * (1 - t / 4) for t in range(3)]
  for name, decay in (("w", 0.1), ("b", 0.0)):
    expected = adamw(params[name], [g[name] for g in grads], used, decay)
    np.testing.assert_allclose(now[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Muon])
def test_vectors_are_not_decayed(kind):
  """With no gradient, all that moves a parameter is its decay."""
  params = draw(SPEC.shapes(), 0)
  nothing = jax.tree.map(jnp.zeros_like, params)
  optimizer = kind(lr=0.1, weight_decay=0.5)
  updates = one_update(optimizer, SPEC.axes(), params, nothing)
  for path, update in jax.tree_util.tree_leaves_with_path(updates):
    name = paths.name_of(path)
    value = jax.tree.leaves(
      jax.tree_util.tree_map_with_path(
        lambda p, x, path=path: x if p == path else None, params
      )
    )[0]
    decayed = name.endswith(("kernel", "weight"))
    expected = -0.05 * value if decayed else jnp.zeros_like(value)
    np.testing.assert_allclose(update, expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
  ("name", "inputs", "outputs"),
  [
    ("attention/q/kernel", (1,), (2, 3)),
    ("attention/k/kernel", (1,), (2, 3)),
    ("attention/v/kernel", (1,), (2, 3)),
    ("attention/o/kernel", (1, 2), (3,)),
    ("mlp/gate/kernel", (1,), (2,)),
    ("mlp/up/kernel", (1,), (2,)),
    ("mlp/down/kernel", (1,), (2,)),
  ],
)
def test_matrix_axes_of_a_decoder(name, inputs, outputs):
  axes = SPEC.axes()["segment_0"]
  for key in name.split("/"):
    axes = axes[key]
  found = optim.matrix_axes(axes)
  assert found is not None
  assert found.reduction_axis == inputs
  assert found.output_axis == outputs


def test_what_is_no_hidden_matrix():
  axes = SPEC.axes()
  layer = axes["segment_0"]
  for vector in (
    axes["embedding"]["weight"],
    axes["norm"]["scale"],
    layer["attention_norm"]["scale"],
    layer["attention"]["q"]["bias"],
    layer["attention"]["k"]["bias"],
  ):
    assert optim.matrix_axes(vector) is None, vector


def test_stacked_muon_is_muon_of_each_matrix():
  """Against the update of one layer's matrices, reshaped to two axes."""
  optimizer = optim.Muon(lr=0.1, weight_decay=0.01, clip_norm=None)
  params, grads = draw(SPEC.shapes(), 0), draw(SPEC.shapes(), 1)
  stacked = one_update(optimizer, SPEC.axes(), params, grads)["segment_0"]
  shapes = {  # rows are inputs, columns outputs
    ("attention", "q"): (8, 8),
    ("attention", "v"): (8, 4),
    ("attention", "o"): (8, 8),
    ("mlp", "gate"): (8, 12),
    ("mlp", "down"): (12, 8),
  }
  for (group, name), shape in shapes.items():
    pick = lambda tree, g=group, n=name: tree[g][n]["kernel"]  # noqa: E731
    for layer in range(3):
      p = pick(params["segment_0"])[layer].reshape(shape)
      g = pick(grads["segment_0"])[layer].reshape(shape)
      alone = one_update(
        optimizer, {"w": ("embed", "mlp")}, {"w": p}, {"w": g}
      )["w"]
      np.testing.assert_allclose(
        pick(stacked)[layer].reshape(shape), alone, rtol=2e-4, atol=2e-6
      )


def test_muon_is_nearly_orthogonal():
  axes = {"w": ("embed", "mlp")}
  params = {"w": jnp.zeros((6, 9))}
  optimizer = optim.Muon(lr=1.0, clip_norm=None, rms=None)
  update = one_update(optimizer, axes, params, draw(params, 3))["w"]
  values = np.linalg.svd(np.float64(update), compute_uv=False)
  assert values.max() / values.min() < 2.5  # 100 for the gradient's own kind


def test_clipping_is_of_the_global_norm():
  axes = {"w": ("embed", "mlp"), "b": ("mlp",)}
  params = draw({"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}, 0)
  grads = jax.tree.map(lambda x: 100 * x, draw(params, 1))
  norm = np.sqrt(sum(np.square(np.float64(g)).sum() for g in grads.values()))
  clipped = {k: g * (2.0 / norm) for k, g in grads.items()}
  # eps so large that AdamW is linear in the gradient
  big = {"lr": 1.0, "eps": 1e6}
  found = one_update(optim.AdamW(clip_norm=2.0, **big), axes, params, grads)
  plain = one_update(optim.AdamW(clip_norm=None, **big), axes, params, clipped)
  for name in found:
    np.testing.assert_allclose(found[name], plain[name], rtol=1e-5)


def test_rates_by_group():
  params, grads = draw(SPEC.shapes(), 0), draw(SPEC.shapes(), 1)
  base = optim.AdamW(lr=1e-2, weight_decay=0.1)
  rates = {"embedding/*": 0.0, "segment_0/mlp/*": 0.5, "segment_0/*": 2.0}
  grouped = optim.AdamW(lr=1e-2, weight_decay=0.1, rates=rates)
  plain = one_update(base, SPEC.axes(), params, grads)
  found = one_update(grouped, SPEC.axes(), params, grads)
  factor = {"embedding": 0.0, "norm": 1.0}
  for name, value in factor.items():
    jax.tree.map(
      lambda f, p, v=value: np.testing.assert_allclose(f, v * p, rtol=1e-6),
      found[name],
      plain[name],
    )
  for name, value in (("mlp", 0.5), ("attention", 2.0)):
    jax.tree.map(
      lambda f, p, v=value: np.testing.assert_allclose(f, v * p, rtol=1e-6),
      found["segment_0"][name],
      plain["segment_0"][name],
    )


def test_a_group_of_nothing_is_refused():
  optimizer = optim.AdamW(rates={"student/embedding/*": 0.1})
  with pytest.raises(types.UserError, match=r"optimizer\.rates.*embedding"):
    optim.make(optimizer, SPEC.axes())


def test_masks_of_rows():
  params = {"student": SPEC.shapes()}
  mask = optim.trainable(
    (
      optim.Freeze("student/embedding/weight", rows=(5, 20)),
      optim.Freeze("student/segment_0/*", rows=(0, 2)),
      optim.Freeze("student/norm/scale"),
    ),
    params,
  )["student"]
  assert mask["embedding"]["weight"].shape == (20, 1)
  np.testing.assert_array_equal(
    mask["embedding"]["weight"][:, 0], [1] * 5 + [0] * 15
  )
  kernel = mask["segment_0"]["attention"]["q"]["kernel"]
  assert kernel.shape == (3, 1, 1, 1)
  np.testing.assert_array_equal(kernel[:, 0, 0, 0], [0, 0, 1])
  np.testing.assert_array_equal(mask["norm"]["scale"], [0])


def test_overlapping_freezes_add_up():
  mask = optim.trainable(
    (optim.Freeze("w", rows=(0, 1)), optim.Freeze("w", rows=(2, 3))),
    {"w": jnp.zeros((4, 2))},
  )
  np.testing.assert_array_equal(mask["w"][:, 0], [0, 1, 0, 1])


@pytest.mark.parametrize(
  ("freeze", "message"),
  [
    (optim.Freeze("embedding/*"), "matches no parameter; there are"),
    (optim.Freeze("student/norm/scale", (4, 99)), r"rows \(4, 99\).*8 rows"),
    (optim.Freeze("student/norm/scale", (4, 4)), r"rows \(4, 4\)"),
  ],
  ids=["pattern", "beyond", "empty"],
)
def test_freezes_that_fit_nothing(freeze, message):
  with pytest.raises(types.UserError, match=message):
    optim.trainable((freeze,), {"student": SPEC.shapes()})


def test_nothing_frozen():
  assert optim.trainable((), {"w": jnp.zeros(2)}) is None


@pytest.mark.parametrize(
  "optimizer",
  [
    optim.AdamW(weight_decay=0.1, rates={"norm/*": 0.5}),
    optim.Muon(weight_decay=0.1),
  ],
  ids=["adamw", "muon"],
)
def test_what_stays_as_a_whole_has_no_moments(optimizer):
  params = SPEC.init(jax.random.key(0))
  grads = SPEC.init(jax.random.key(1))
  freezes = (optim.Freeze("embedding/*"), optim.Freeze("segment_0/*norm/*"))
  mask = optim.trainable(freezes, params)
  chain = optim.make(optimizer, SPEC.axes(), mask)
  state = chain.init(params)
  sizes = [x.size for x in jax.tree.leaves(state)]
  assert params["embedding"]["weight"].size not in sizes
  updates, _ = chain.update(grads, state, params)
  # The same as where only the others exist, clipping included.
  rest = {k: v for k, v in params.items() if k != "embedding"}
  still = jax.tree.map(lambda g, m: g * m, grads, mask)
  plain = optim.make(optimizer, SPEC.axes())
  whole, _ = plain.update(still, plain.init(params), params)
  moved = optim.moves(mask)
  for name in rest:
    jax.tree.map(
      lambda u, w, m: np.testing.assert_allclose(u, w if m else 0 * w),
      updates[name], whole[name], moved[name],
    )  # fmt: skip
  assert not updates["embedding"]["weight"].any()
