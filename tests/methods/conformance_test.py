# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What every method promises, walked over all of `jdistill.methods`.

A new method is picked up by its import line; only one that cannot be built
from its defaults needs a line in `OWN`.
"""

import dataclasses
import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdistill import checkpoint, methods, schedules, sharding, step, types
from jdistill.methods import base
from jdistill.models import DecoderConfig, FeatureDraft, Mixture, Segment
from jdistill.models.classifier import MLPConfig
from jdistill.models.spec import LayerSpec

CLASSES = [
  cls
  for cls in vars(methods).values()
  if inspect.isclass(cls)
  and issubclass(cls, base.Method)
  and not inspect.isabstract(cls)
]
RISE = schedules.Linear(0.2, 1.0, 8)
OWN = {
  methods.DACKL: lambda: methods.DACKL(top=6, hidden=8, floor=0.99),
  methods.DKD: lambda: methods.DKD(warmup=8),
  methods.DistiLLM2: lambda: methods.DistiLLM2(beta=RISE),
  methods.Ensemble: lambda: methods.Ensemble(
    methods.Sum({"kd": methods.Part(methods.KD(), RISE)}),
    {"teacher": 1.0, "reference": 0.5},
    weights="learned",
  ),
  methods.GradMag: lambda: methods.GradMag(
    {
      "kd": methods.Part(methods.KD()),
      "hidden": methods.Part(methods.Features(projector="always"), 0.5),
    }
  ),
  methods.Hinton: lambda: methods.Hinton(lam=RISE, tau=2.0),
  methods.OnPolicyDistillation: lambda: methods.OnPolicyDistillation(
    "clip", truncate=1.5
  ),
  methods.Routed: lambda: methods.Routed(
    methods.KD(), ("reference", "teacher", "reference")
  ),
  methods.SelfDistillation: lambda: methods.SelfDistillation(
    top=6, skip=1, rows="told"
  ),
  # Products of probabilities are small numbers.
  methods.SpanLoss: lambda: methods.Sum(
    {"span": methods.Part(methods.SpanLoss(), 100.0)}
  ),
  methods.Sum: lambda: methods.Sum(
    {
      "kd": methods.Part(methods.KD(), RISE),
      "weighted": methods.Part(methods.WeightedKD("kl"), 0.5),
      "hidden": methods.Part(methods.Features(projector="always"), 0.1),
    }
  ),
}
# Teachers with another tokenizer.
PAIRS = [methods.ALM, methods.ALMLatents, methods.DSKD, methods.GOLD,
         methods.MinED, methods.ULD]  # fmt: skip
KINDS = {
  **dict.fromkeys(PAIRS, ("pair",)),
  methods.EAGLE: ("draft",),
  methods.GradMag: ("decoder",),
  methods.MiniLLM: ("decoder",),
  methods.RouterBalance: ("sparse",),
  methods.SelfDistillation: ("decoder",),
  methods.SpanLoss: ("decoder",),
}
MOVING = [methods.DKD, methods.DistiLLM2, methods.Hinton, methods.Sum]
# These are measured token by token like `KD`: their decoders, and layouts but
# the first, only if slow.
ALIKE = [methods.AdaSPEC, methods.AdaptiveKL, methods.AlphaBetaKD,
         methods.CrossEntropy, methods.DACKL, methods.DKD, methods.DistiLLM2,
         methods.Ensemble, methods.GRPO, methods.Hinton, methods.JSD,
         methods.OnPolicyDistillation, methods.Routed, methods.SkewKL,
         methods.WeightedKD]  # fmt: skip
# Texts alone, whose layouts take longest.
TEXTS = [*PAIRS, methods.EAGLE, methods.MiniLLM, methods.SelfDistillation,
         methods.SpanLoss]  # fmt: skip
CASES = [
  pytest.param(
    cls,
    kind,
    id=f"{cls.__name__}-{kind}",
    marks=[pytest.mark.slow]
    if (cls in ALIKE and kind == "decoder") or cls in PAIRS[1:]
    else [],
  )
  for cls in CLASSES
  for kind in KINDS.get(cls, ("decoder", "classifier"))
]
# Sizes of `sharding.MeshShape`, or None for one device, and microbatches.
LAYOUTS = [
  ((2, 2, 2), 2),
  (None, 2),
  (None, 4),
  ((8, 1, 1), 1),
  ((1, 4, 2), 1),
  ((1, 2, 2, 2), 2),
]
SPARSE_LAYOUTS = [((1, 2, 1, 1, 4), 2), ((2, 1, 2, 1, 2), 2), *LAYOUTS]
LAYOUT_CASES = [
  pytest.param(
    cls,
    kind,
    *layout,
    id=f"{cls.__name__}-{kind}-{layout}",
    # A decoder takes seconds to compile: one layout by default, all if slow.
    marks=[pytest.mark.slow]
    if (layout_at and kind != "classifier")
    or (cls in ALIKE and (layout_at or kind == "decoder"))
    or cls in TEXTS
    else [],
  )
  for cls in CLASSES
  for kind in KINDS.get(cls, ("decoder", "classifier"))
  for layout_at, layout in enumerate(
    SPARSE_LAYOUTS if kind == "sparse" else LAYOUTS
  )
]
B, T, V = 8, 8, 32
# Compiles in half the time; the tests run each program once or twice.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def build(cls) -> base.Method:
  return OWN.get(cls, cls)()


def decoder(width: int, heads: int, layers: int) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=V,
    width=width,
    mlp_width=2 * width,
    num_heads=heads,
    num_kv_heads=heads,
    head_dim=8,
    segments=(Segment.uniform(layers),),
  )


@functools.cache
def models(kind: str):
  """Student and teachers of different widths, with parameters."""
  if kind != "classifier":
    student, teacher = decoder(16, 2, 2), decoder(24, 2, 2)
    reference = decoder(16, 2, 2)
  if kind == "pair":
    student, teacher = decoder(16, 2, 1), decoder(24, 2, 1)
  if kind == "sparse":
    student = dataclasses.replace(
      student,
      segments=(Segment.uniform(2, sparse=True),),
      experts=Mixture(4, 2, 12),
    )
  if kind == "draft":
    names = [field.name for field in dataclasses.fields(LayerSpec)]
    layers = {name: getattr(teacher, name) for name in names}
    student = FeatureDraft(
      **layers | {"segments": (Segment.uniform(1),)},
      vocab_size=V,
      sampling=2,
      unaligned=8,
      noise=0.01,
    )
  if kind == "classifier":
    student = MLPConfig(classes=V, shape=(12,), widths=(16, 8))
    teacher = MLPConfig(classes=V, shape=(12,), widths=(24, 16))
    reference = student
  teachers = {"teacher": teacher, "reference": reference}
  keys = jax.random.split(jax.random.key(0), 3)
  # Spread the logits: at random weights everybody says the same of all tokens.
  weights = {
    name: jax.tree.map(lambda x: 3 * x, shape.init(key))
    for (name, shape), key in zip(teachers.items(), keys[1:], strict=True)
  }
  return student, teachers, student.init(keys[0]), weights


def batch(kind: str, *, garbage: int = 0) -> types.Batch:
  """Rows with prompts, packed documents and padding; `garbage` is in it."""
  rng, noise = np.random.default_rng(0), np.random.default_rng(garbage)
  ids = np.arange(B, dtype=np.int32)
  if kind == "classifier":
    inputs = rng.normal(size=(B, 12)).astype(np.float32)
    targets = rng.integers(V, size=B).astype(np.int32)
    mask = (ids < B - 1).astype(np.float32)
    inputs[-1] = noise.normal(size=12)
    targets[-1] = noise.integers(V)
    view = types.Examples(inputs, targets, mask)
    views = {"student": view, "teacher_text": view}
    found = types.Batch(views, arrays(mask, noise), ids)
    return jax.tree.map(jnp.asarray, found)
  length = np.array([8, 7, 6, 8, 3, 8, 5, 0])
  view = text(length, 4, T, rng, noise)
  views = {
    "student": view,
    "teacher_text": text(length[::-1], T, T, rng, noise),
    # The first document is read after four tokens more.
    "privileged": text(length + 4, 8, T + 4, rng, noise),
  }
  data = arrays(view.mask, noise)
  if kind == "pair":
    # In the teacher's tokens everything is twice as long.
    views["teacher"] = text(2 * length, 8, 2 * T, rng, noise)
    numbers = np.array([0, 1, 1, 2, 0, 3, 4, 4])
    others = np.where(np.arange(2 * T) == 7, 0, np.repeat(numbers, 2))
    for name, row in (("student", numbers), ("teacher", others)):
      counts = views[name].mask > 0
      junk = noise.integers(9, size=counts.shape)
      chunks = np.where(counts, row, junk).astype(np.int32)
      data[f"{name}_chunks"] = chunks
  found = types.Batch(views, data, ids)
  return jax.tree.map(jnp.asarray, found)


def text(length, second_at: int, size: int, rng, noise) -> types.Tokens:
  """Rows of so many tokens; another document begins at `second_at`."""
  at = np.arange(size)[None]
  real = at < length[:, None]
  second = at >= second_at
  segments = np.where(real, np.where(second, 2, 1), 0).astype(np.int32)
  positions = np.where(second, at - second_at, at).astype(np.int32)
  mask = (real & (at % 4 != 0)).astype(np.float32)
  tokens, targets = rng.integers(V, size=(2, B, size)).astype(np.int32)
  junk = noise.integers(V, size=(2, B, size)).astype(np.int32)
  return types.Tokens(
    tokens=np.where(real, tokens, junk[0]),
    targets=np.where(mask > 0, targets, junk[1]),
    mask=mask,
    positions=np.repeat(positions, B, 0),
    segment_ids=segments,
  )


def arrays(mask, noise) -> dict[str, np.ndarray]:
  """What text that a model wrote brings along, garbage where none counts."""
  rng = np.random.default_rng(3)
  rows = mask.reshape(B, -1).any(-1)
  shape, counts = mask.shape, mask > 0
  at = np.broadcast_to(np.arange(mask.size // B), (B, mask.size // B))

  def beside(values, junk):
    return np.where(counts if values.ndim == mask.ndim else rows, values, junk)

  old = beside(rng.normal(-3.5, 0.3, shape), noise.normal(0, 99, shape))
  sampling = beside(old + rng.normal(0, 0.3, shape), noise.normal(0, 9, shape))
  spans = beside(1 + at.reshape(shape) // 4, noise.integers(9, size=shape))
  index = beside(at.reshape(shape) + 4, noise.integers(99, size=shape))
  reward = beside(rng.normal(size=B), noise.normal(0, 9, B))
  group = beside(np.arange(B) % 3, noise.integers(3, size=B))
  told = beside(np.arange(B) % 4 != 1, True)
  domain = beside(np.arange(B) // 2 % 3, noise.integers(3, size=B))
  return {
    **{"log_probs": old.astype(np.float32), "spans": spans.astype(np.int32)},
    **{"sampling_log_probs": sampling.astype(np.float32)},
    **{"teacher_index": index.astype(np.int32), "told": told},
    **{"reward": reward.astype(np.float32), "group": group.astype(np.int32)},
    **{"domain": domain.astype(np.int32)},
  }


def tables() -> step.Tables:
  """What methods may know of the ids of two tokenizers."""
  rng = np.random.default_rng(4)
  same = np.where(rng.random(V) < 0.6, rng.permutation(V), -1)
  return {
    "student": {
      "boundary": rng.random(V) < 0.3,
      "nearest": rng.integers(V, size=V).astype(np.int32),
      "same": same.astype(np.int32),
    },
    "teacher": {"boundary": rng.random(V) < 0.3},
  }


def start(method: base.Method, kind: str):
  """Trained and frozen parameters."""
  student, teachers, weights, frozen = models(kind)
  shapes = step.output_shapes(student, teachers, method, batch(kind))
  own = method.init(jax.random.key(1), shapes)
  return {"student": weights, "method": own}, frozen


def make_gradient(method: base.Method, kind: str, microbatches: int = 1):
  student, teachers, _, _ = models(kind)
  return step.make_gradient(
    student, teachers, method, microbatches=microbatches, tables=tables()
  )


@functools.cache
def on_one_device(cls, kind: str):
  """A compiled gradient, and what it says of the plain batch at step 3."""
  gradient = jit(make_gradient(build(cls), kind))
  params, frozen = start(build(cls), kind)
  return gradient, gradient(params, frozen, batch(kind), jnp.int32(3))


def on_mesh(cls, kind: str, shape, microbatches: int):
  """The same on a mesh, parameters and rows divided over it."""
  student, teachers, _, _ = models(kind)
  mesh = sharding.make_mesh(sharding.MeshShape(*shape))
  params, frozen = start(build(cls), kind)
  axes = {
    "student": student.axes(),
    "method": jax.tree.map(lambda x: (None,) * x.ndim, params["method"]),
  }
  places = (
    sharding.param_shardings(axes, params, mesh),
    sharding.param_shardings(
      {name: a.axes() for name, a in teachers.items()}, frozen, mesh
    ),
    sharding.of_batch(batch(kind), mesh),
    sharding.replicated(mesh),
  )
  gradient = make_gradient(build(cls), kind, microbatches)
  args = jax.device_put((params, frozen, batch(kind), jnp.int32(3)), places)
  with jax.set_mesh(mesh):
    return jit(gradient)(*args)


def assert_same(found, expected, *, rtol: float = 1e-5):
  """The same gradient to `rtol` of its norm, and the same loss and metrics."""
  (grads, loss), (want, want_loss) = jax.device_get((found, expected))
  gap = jax.tree.map(np.subtract, grads, want)
  norm = float(optax.global_norm(want))
  assert norm > 1e-4
  assert float(optax.global_norm(gap)) <= rtol * norm
  chex.assert_trees_all_close(loss, want_loss, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("cls", "kind"), CASES)
def test_padding_changes_nothing(cls, kind):
  gradient, plain = on_one_device(cls, kind)
  params, frozen = start(build(cls), kind)
  other = batch(kind, garbage=7)
  moved = [
    bool((a != b).any())
    for a, b in zip(
      jax.tree.leaves(batch(kind)), jax.tree.leaves(other), strict=True
    )
  ]
  assert any(moved)
  assert_same(gradient(params, frozen, other, jnp.int32(3)), plain, rtol=1e-6)


@pytest.mark.parametrize(("cls", "kind", "shape", "microbatches"), LAYOUT_CASES)
def test_layout_changes_nothing(cls, kind, shape, microbatches):
  if build(cls).batch_coupled:
    if shape is None:
      return  # accumulation is refused: see the test below
    microbatches = 1
  _, expected = on_one_device(cls, kind)
  if shape is not None:
    found = on_mesh(cls, kind, shape, microbatches)
  else:
    gradient = jit(make_gradient(build(cls), kind, microbatches))
    params, frozen = start(build(cls), kind)
    found = gradient(params, frozen, batch(kind), jnp.int32(3))
  assert_same(found, expected)


@pytest.mark.parametrize("cls", CLASSES)
def test_accumulation_is_refused_where_it_would_change_the_loss(cls):
  method = build(cls)
  student, teachers, _, _ = models("decoder")

  def make():
    return step.make_train_step(
      student, teachers, method, optax.sgd(1.0), microbatches=2
    )

  if not method.batch_coupled:
    assert callable(make())
    return
  with pytest.raises(types.UserError, match=f"microbatches=2: {cls.__name__}"):
    make()


@pytest.mark.parametrize(
  "cls",
  [
    pytest.param(c, marks=[pytest.mark.slow] if c in PAIRS[1:] else [])
    for c in CLASSES
  ],
)
def test_teachers_get_no_gradient(cls):
  method = build(cls)
  kind = KINDS.get(cls, ("classifier",))[0]
  student, teachers, _, _ = models(kind)
  params, frozen = start(method, kind)
  loss = step.make_loss(student, teachers, method, tables())
  data, keys = batch(kind), jax.random.split(jax.random.key(0), B)
  wants = step.wants(student, method)

  def speaker(name, shape, weights, **how):
    want = wants.get(name, ())
    how["tables"] = tables().get(name, {})
    return step.Speaker(shape.bind(weights), data, want, **how)

  def total(frozen):
    others = {k: speaker(k, a, frozen[k]) for k, a in teachers.items()}
    hears = others.get(student.hears)
    own = speaker("student", student, params["student"], hears=hears)
    arrays = method.survey(params["method"], own, others, data)
    ready = method.prepare(arrays, data, keys)
    norms = method.norms(ready)
    if cls is methods.GradMag:
      norms |= {f"{name}/gradient": jnp.ones(()) for name in method.parts}
    ctx = base.Context(jnp.int32(3), keys, norms)
    return loss(params, frozen, ready, ctx).total

  # Zeros that nothing computes: the gradient is absent, not merely small.
  grads = jit(jax.grad(total))(frozen)
  assert all(not bool(jnp.any(x)) for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("cls", MOVING)
def test_moving_schedules_compile_once(cls):
  params, frozen = start(build(cls), "classifier")
  chex.clear_trace_counter()
  gradient = jit(
    chex.assert_max_traces(make_gradient(build(cls), "classifier"), n=1)
  )
  totals = [
    float(gradient(params, frozen, batch("classifier"), jnp.int32(at))[1].total)
    for at in (0, 3, 8)
  ]
  assert len(set(totals)) == 3


def test_parameters_and_state_survive_a_checkpoint(tmp_path):
  trained = {}
  for cls in CLASSES:
    params, _ = start(build(cls), KINDS.get(cls, ("decoder",))[0])
    trained[cls.__name__] = params["method"]
  params = {"student": models("decoder")[2], "method": trained}
  assert jax.tree.leaves(trained)
  params = jax.tree.map(lambda x: x + 1 / 3, params)
  state = types.TrainState(
    jnp.int32(5), params, optax.adam(1e-3).init(params), {"ema": params}
  )
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state
  )
  with checkpoint.Checkpoints(tmp_path / "checkpoints") as saved:
    saved.save(5, state, {"at": 1})
    saved.wait()
    found = saved.restore(5, like)
  chex.assert_trees_all_equal(found.state, state)
  assert found.position == {"at": 1}
