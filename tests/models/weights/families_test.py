# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Every family against transformers, on tiny random models.

tests/models/data/make_families.py says how the reference values were made.
"""

import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jdistill import refs, types
from jdistill.models import weights

DATA = pathlib.Path(__file__).parents[1] / "data"
FAMILIES = json.loads((DATA / "families.json").read_text())
VALUES = np.load(DATA / "families.npz")
each_family = pytest.mark.parametrize("family", sorted(FAMILIES))


def draw(name, shape):
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  values = 0.3 * rng.standard_normal(shape)
  return (values + name.endswith("norm.weight")).astype(np.float32)


def located(kind, path):
  return refs.Located(str(path), kind, pathlib.Path(path))


def write(family, directory, dtype=np.float32):
  """The reference model as transformers would keep it."""
  described = FAMILIES[family]
  tensors = {
    name: draw(name, shape).astype(dtype)
    for name, shape in described["tensors"].items()
  }
  save_file(tensors, directory / "model.safetensors")
  (directory / "config.json").write_text(json.dumps(described["config"]))
  return located("huggingface", directory)


def whole_rows(ids):
  """Rows of one document each."""
  ids = jnp.asarray(ids)
  positions = jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
  return types.Tokens(
    tokens=ids,
    targets=ids,
    mask=jnp.ones(ids.shape, jnp.float32),
    positions=positions,
    segment_ids=jnp.ones(ids.shape, jnp.int32),
  )


def logits(config, params):
  view = whole_rows(VALUES["ids"])
  return np.asarray(
    jax.jit(lambda p, v: config.bind(p)(v).logits)(params, view)
  )


@each_family
def test_logits_agree_with_transformers(family, tmp_path):
  config, params = weights.load(write(family, tmp_path))
  found = logits(config, params)[0]
  np.testing.assert_allclose(found, VALUES[family], atol=1e-4, rtol=0)


@each_family
def test_parameters_are_those_of_the_config(family, tmp_path):
  location = write(family, tmp_path)
  config, params = weights.load(location)
  assert config == weights.read_config(location)
  shapes = config.shapes()
  assert jax.tree.structure(params) == jax.tree.structure(shapes)
  assert jax.tree.map(lambda a: a.shape, params) == jax.tree.map(
    lambda a: a.shape, shapes
  )


@each_family
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_huggingface_round_trip_is_exact(family, dtype, tmp_path):
  (tmp_path / "in").mkdir()
  config, params = weights.load(write(family, tmp_path / "in"), dtype=dtype)
  out = tmp_path / "out"
  weights.save_huggingface(
    out, config, params, special_ids={"eos_token_id": [2, 3]}
  )
  again, back = weights.load(located("huggingface", out), dtype=dtype)
  assert (again.windows, again.layer_ropes) == (
    config.windows,
    config.layer_ropes,
  )
  assert_same_bits(params, back)
  generation = json.loads((out / "generation_config.json").read_text())
  assert generation["eos_token_id"] == [2, 3]


def assert_same_bits(tree, other):
  for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(
      np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8)
    )


@each_family
def test_safetensors_are_what_transformers_writes(family, tmp_path):
  from safetensors.numpy import load_file

  (tmp_path / "in").mkdir()
  config, params = weights.load(write(family, tmp_path / "in"))
  weights.save_huggingface(tmp_path / "out", config, params)
  written = load_file(tmp_path / "out" / "model.safetensors")
  assert written.keys() == FAMILIES[family]["tensors"].keys()
  for name, shape in FAMILIES[family]["tensors"].items():
    np.testing.assert_array_equal(written[name], draw(name, shape))


def test_sharded_files(tmp_path):
  (tmp_path / "in").mkdir()
  config, params = weights.load(write("qwen3", tmp_path / "in"))
  out = tmp_path / "out"
  weights.save_huggingface(out, config, params, shard_bytes=20_000)
  assert len(list(out.glob("model-*.safetensors"))) > 2
  assert all(f.stat().st_size < 25_000 for f in out.glob("*.safetensors"))
  _, back = weights.load(located("huggingface", out))
  assert_same_bits(params, back)


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_moe_all"])
def test_one_tensor_for_all_experts_of_a_layer(family, tmp_path):
  """As transformers 5 computes with them, and writes them if it is told to."""
  for name in ("apart", "fused"):
    (tmp_path / name).mkdir()
  location = write(family, tmp_path / "apart")
  fused, parts = {}, {}
  for name, shape in FAMILIES[family]["tensors"].items():
    prefix, found, rest = name.partition(".mlp.experts.")
    if not found:
      fused[name] = draw(name, shape)
      continue
    expert, kind, _ = rest.split(".")
    parts.setdefault(prefix, {})[kind, int(expert)] = draw(name, shape)
  for prefix, experts in parts.items():
    count = len(experts) // 3
    rows = lambda kind, experts=experts, count=count: np.stack(  # noqa: E731
      [experts[f"{kind}_proj", n] for n in range(count)]
    )
    both = np.concatenate([rows("gate"), rows("up")], axis=1)
    fused[f"{prefix}.mlp.experts.gate_up_proj"] = both
    fused[f"{prefix}.mlp.experts.down_proj"] = rows("down")
  assert parts
  save_file(fused, tmp_path / "fused" / "model.safetensors")
  text = json.dumps(FAMILIES[family]["config"])
  (tmp_path / "fused" / "config.json").write_text(text)
  _, expected = weights.load(location)
  _, params = weights.load(located("huggingface", tmp_path / "fused"))
  assert_same_bits(expected, params)


@each_family
def test_parts_land_on_their_devices(family, tmp_path):
  location = write(family, tmp_path)
  config, whole = weights.load(location)
  mesh = jax.sharding.Mesh(
    np.asarray(jax.devices()).reshape(2, 2, 2), ("a", "b", "c")
  )
  over = {
    "embed": "a",
    "heads": "b",
    "kv_heads": "b",
    "mlp": "b",
    "vocab": "b",
    "head_dim": "c",
    "expert": "c",
  }
  shardings = jax.tree.map(
    lambda names: jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec(*map(over.get, names))
    ),
    config.axes(),
    is_leaf=lambda x: isinstance(x, tuple),
  )
  _, params = weights.load(location, shardings=shardings)
  assert jax.tree.map(lambda a: a.sharding, params) == shardings
  assert_same_bits(whole, params)


def test_text_part_of_a_multimodal_checkpoint(tmp_path):
  described = FAMILIES["gemma3"]
  tensors = {
    f"language_model.{name}": draw(name, shape)
    for name, shape in described["tensors"].items()
  }
  tensors["vision_tower.patch.weight"] = np.zeros((2, 2), np.float32)
  save_file(tensors, tmp_path / "model.safetensors")
  fields = {"model_type": "gemma3", "text_config": described["config"]}
  (tmp_path / "config.json").write_text(json.dumps(fields))
  config, params = weights.load(located("huggingface", tmp_path))
  found = logits(config, params)[0]
  np.testing.assert_allclose(found, VALUES["gemma3"], atol=1e-4, rtol=0)


@pytest.mark.slow
@each_family
def test_transformers_loads_what_is_exported(family, tmp_path):
  torch = pytest.importorskip("torch")
  import transformers

  (tmp_path / "in").mkdir()
  config, params = weights.load(write(family, tmp_path / "in"))
  weights.save_huggingface(tmp_path / "out", config, params)
  model, report = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "out", attn_implementation="eager", output_loading_info=True
  )
  assert not any(report.values()), report
  assert type(model.config).__name__ == type_name(family)
  with torch.no_grad():
    expected = model(torch.from_numpy(VALUES["ids"].astype(np.int64))).logits
  # The reference values again: nothing may have been lost on the way.
  np.testing.assert_allclose(expected[0].numpy(), VALUES[family], atol=1e-5)
  found = logits(config, params)
  np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=0)


def type_name(family):
  names = {
    "llama3": "LlamaConfig",
    "gemma3": "Gemma3TextConfig",
    "qwen3_moe": "Qwen3MoeConfig",
    "qwen3_moe_all": "Qwen3MoeConfig",
  }
  return names.get(family, f"{family.title()}Config")
