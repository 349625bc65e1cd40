# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run that trains adapters: resumed, judged, continued, exported whole."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jdistill import (
  checkpoint,
  cli,
  config,
  pretrained,
  run,
  sharding,
  train,
  types,
)
from jdistill.models import MLPConfig

pytestmark = pytest.mark.slow
PROMPT = "The statement"


def lora(**fields):
  fields = {"rank": 2, "alpha": 4.0, "targets": ("q", "v", "up")} | fields
  return config.Lora(config.Cut((0, 2)), **fields)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
  """The run, stopped half-way and taken up again, and what it said."""
  workdir = tmp_path_factory.mktemp("runs") / "lora"
  lines = []
  half = world.config(student=lora(), steps=2, eval_every=2)
  train.train(half, workdir, log=lines.append)
  mesh = sharding.MeshShape(data=2, fsdp=2, tensor=2)
  whole = world.config(student=lora(), steps=4, mesh=mesh)
  result = train.train(whole, workdir, log=lines.append)
  return workdir, result["evals"]["eval"], "\n".join(lines)


@pytest.fixture(scope="module")
def adapted(finished):
  """The student as it was trained, and its parameters."""
  path = finished[0]
  kept = pretrained.run_architecture(path)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  like = jax.tree.map(
    lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device),
    kept.shapes(),
  )
  return kept, checkpoint.restore_params(path / "checkpoints", 4, like)


def logits(architecture, params):
  ids = jnp.asarray([[5, 80, 300, 7, 9, 31, 2, 100]], jnp.int32)
  places = jnp.arange(8)[None]
  view = types.Tokens(ids, ids, jnp.ones(ids.shape), places, places * 0 + 1)
  return jax.jit(lambda p: architecture.bind(p)(view).logits)(params)


def test_only_the_adapters_have_moved(finished, adapted, world):
  full = pretrained.find(str(world.teacher)).params()
  _, evals, said = finished
  assert "resuming at step 2" in said
  assert "of them" in said
  assert evals["end"]["kl"] < evals["start"]["kl"]
  for block, product in (("attention", "q"), ("attention", "o"), ("mlp", "up")):
    leaf = adapted[1]["segment_0"][block][product]
    start = full["segment_0"][block][product]["kernel"][np.array([0, 2])]
    np.testing.assert_array_equal(leaf["kernel"], start)
    assert ("lora_b" in leaf) == (product != "o")
    assert product == "o" or float(jnp.abs(leaf["lora_b"]).max()) > 0


def test_is_judged_as_it_was_during_the_run(finished, capsys):
  path, evals, _ = finished
  assert cli.main(["evaluate", str(path)]) == 0
  said = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert said["kl"] == pytest.approx(evals["end"]["kl"], rel=1e-4)


def test_is_exported_with_whole_kernels(finished, adapted, tmp_path, capsys):
  path = finished[0]
  assert cli.main(["export", str(path), "--to", str(tmp_path / "out")]) == 0
  found = pretrained.find(str(tmp_path / "out"))
  assert found.architecture.low_rank is None
  np.testing.assert_allclose(
    logits(found.architecture, found.params()),
    logits(*adapted),
    rtol=1e-4,
    atol=1e-4,
  )
  assert (
    "LoRA of rank 2 on q, v, up" in (tmp_path / "out/README.md").read_text()
  )
  file = tmp_path / "out.gguf"
  argv = ["export", str(path), "--to", str(file), "--format", "gguf"]
  assert cli.main([*argv, "--kind", "f32"]) == 0
  jax.tree.map(
    np.testing.assert_array_equal,
    pretrained.find(str(file)).params(),
    found.params(),
  )
  capsys.readouterr()
  texts = []
  for ref in (path, tmp_path / "out"):
    argv = ["generate", str(ref), "--prompt", PROMPT, "--temperature", "0"]
    assert cli.main([*argv, "--max-new-tokens", "8"]) == 0
    texts.append(capsys.readouterr().out)
  assert texts[0] == texts[1]
  assert texts[0].startswith(PROMPT)


def test_flags_reach_it(world):
  flags = "--student.rank 8 --student.targets q o --student.base.layers 0 1"
  got = config.override(world.config(student=lora()), flags.split()).student
  assert (got.rank, got.targets, got.base.layers) == (8, ("q", "o"), (0, 1))


def test_a_product_that_is_not_there(world, tmp_path, capsys):
  path = world.file(
    tmp_path,
    "cfg = dataclasses.replace(cfg, student=config.Lora(config.Cut(2)))",
  )
  argv = ["train", str(path), "--workdir", str(tmp_path / "run")]
  assert cli.main([*argv, "--student.targets", "q", "query"]) == 2
  said = capsys.readouterr().err
  assert "'query'" in said
  assert "q, k, v, o, gate, up, down" in said
  assert not (tmp_path / "run").exists()


def test_a_base_that_is_no_decoder(world, tmp_path):
  classifier = MLPConfig(shape=(4,), classes=3)
  with ocp.StandardCheckpointer() as writer:
    writer.save(tmp_path / "own", classifier.init(jax.random.key(0)))
  base = config.Pretrained(f"orbax:{tmp_path / 'own'}", classifier)
  with pytest.raises(types.UserError, match=r"Lora .* decoders.*MLPConfig"):
    run.find_models(world.config(student=config.Lora(base)))
