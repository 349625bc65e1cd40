# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, tiny, and say what they promise; no speed is asserted."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jdistill import losses, types

HERE = pathlib.Path(__file__).parent
MODELS = (
  "--t-layers 2 --t-dim 32 --t-ffn 64 --s-layers 1 --s-dim 16 --s-ffn 32 "
  "--heads 4 --kv-heads 2 --vocab 256 --batch 2 --seq 16"
)
# What is compiled here runs for milliseconds: compile fast.
FLAGS = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)


def bench(name: str, flags: str) -> dict:
  """The last line that a benchmark prints, run as people run it."""
  env = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": FLAGS,
    "PYTHONWARNINGS": "default",
  }
  found = subprocess.run(
    [
      sys.executable,
      str(HERE / f"{name}.py"),
      *f"{flags} --repeats 1 --gemm 64".split(),
    ],
    env=env,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert found.returncode == 0
  line = json.loads(found.stdout.splitlines()[-1])
  assert line["bench"] == name
  assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", line["commit"])
  assert line["jax"] == jax.__version__
  assert "cpu" in line["device"]
  assert line["gemm_gflops"] > 0
  for flag in re.findall(r"--([a-z-]+)", flags):
    assert flag.replace("-", "_") in line["shapes"]
  return line


def has(figures: dict, *keys: str) -> None:
  """Every key is there, with a range that holds it."""
  for key in keys:
    low, high = figures[f"{key}_range"]
    assert low <= figures[key] <= high, key


@pytest.mark.slow
def test_step():
  line = bench("step", f"{MODELS} --steps 2 --method jsd")
  assert set(line["arms"]) == {"floor", "jsd"}
  for arm in line["arms"].values():
    has(arm, "cpu_s_per_step", "wall_s_median", "tokens_per_s", "compile_s")
    has(arm, "peak_rss_mib", "xla_temp_mib", "ratio_to_floor")
    assert arm["cpu_s_per_step"] > 0
    assert arm["peak_rss_mib"] > 50
  floor = line["arms"]["floor"]
  assert floor["ratio_to_floor"] == floor["peak_ratio_to_floor"] == 1


@pytest.mark.slow
def test_remat():
  line = bench("remat", f"{MODELS} --steps 1 --policy full")
  assert list(line["arms"]) == ["none", "full"]
  for arm in line["arms"].values():
    has(arm, "cpu_s_per_step", "wall_s", "xla_temp_mib", "ratio_to_none")
    assert arm["xla_temp_mib"] > 0


@pytest.mark.parametrize("more", ["--dense", "--mode recompute"])
@pytest.mark.slow
def test_loss(more):
  line = bench(
    "loss",
    "--vocab 512 --tokens 64 --hidden 16 --chunk-bytes 16384 --evaluations 2 "
    f"--divergence reverse_kl {more}",
  )
  assert line["error"] < 1e-5
  assert set(line["arms"]) - {"dense"} == {"loss", "matmuls"}
  for name, arm in line["arms"].items():
    has(arm, "cpu_s", "wall_s", "peak_rss_mib", "compile_s")
    if name != "matmuls":
      has(arm, "ratio_to_matmuls")
      assert arm["xla_temp_mib"] > 0
      assert "head_grad_arrays" in arm
  temporaries = {
    k: a.get("temp_in_logits_arrays") for k, a in line["arms"].items()
  }
  assert temporaries["loss"] < 1
  assert "dense" not in temporaries or temporaries["dense"] > 1


def test_data():
  line = bench(
    "data",
    "--tokens 20000 --text-tokens 5000 --length 60 --seq 128 --vocab 600 "
    "--passes 1 --waits 3 --step-s 0.01",
  )
  for arm in line["arms"].values():
    has(arm, "tokens_per_s", "rows_tokens_per_s", "wait", "open_s")
    assert arm["tokens_per_s"] < arm["rows_tokens_per_s"]
    assert 0.9 < arm["packing_efficiency"] <= 1
    assert arm["cut_short"] == 0
  # A document of n tokens has n - 1 places in the rows.
  assert 0.9 * 20000 < line["arms"]["records"]["packed_tokens"] < 20000 + 10000


@pytest.mark.slow
def test_cache():
  line = bench(
    "cache",
    f"--config {HERE.parents[1] / 'configs' / 'markov.py'} --rows 2 --rounds 1 "
    "--formats top_k:3 sampled:9 hidden:bfloat16 hidden:int8",
  )
  arms = line["arms"]
  for arm in arms.values():
    has(arm, "read_tokens_per_s", "read_over_step")
    assert arm["bytes_per_token"] > 1
  assert arms["sampled:9"]["bias"] == 0 < arms["sampled:9"]["noise"]
  assert 0 < arms["top_k:3"]["bias"] < 2
  assert arms["hidden:bfloat16"]["kl"] < 1e-3


@pytest.mark.slow
def test_checkpoint():
  line = bench("checkpoint", f"{MODELS} --steps 3 --every 10 --saves 1")
  has(line, "step_s", "stall_s", "stall_in_steps", "write_s", "restore_s")
  has(line, "contention_s", "cost", "cost_cpu", "checkpoint_mib")
  assert line["equal"] is True
  assert 0 < line["stall_s"] <= line["write_s"]
  assert line["checkpoint_mib"] > 0


@pytest.mark.slow
def test_sample():
  line = bench(
    "sample",
    "--model tiny --batch 1 3 --prompt 8 --new 4 --rounds 2 --memory-mib 8",
  )
  assert set(line["arms"]) == {"jdistill_1", "jdistill_3"}
  for arm in line["arms"].values():
    has(arm, "prefill_s", "decode_s", "token_ms", "tokens_per_s", "compile_s")
    has(arm, "weights_gb_per_s", "share_of_memory", "peak_rss_mib")
  for reader in ("matvec", "sum", "numpy"):
    has(line["memory"][reader], "gb_per_s")


@pytest.mark.slow
def test_compile():
  line = bench("compile", f"{MODELS} --depths 1 2")
  arms = line["arms"]
  has(arms["depth_1"], "trace_s", "compile_s", "compile_cpu_s")
  has(line, "ratio")
  first, second = arms["first_start"], arms["second_start"]
  assert first["programs"] == second["programs"]
  assert first["compiled"] > 0
  assert second["compiled"] == 0


@pytest.fixture(scope="module")
def head_matmuls():
  spec = importlib.util.spec_from_file_location(
    "head_matmuls", HERE / "head_matmuls.py"
  )
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def pair(tokens: int, vocab: int) -> list[types.Dense]:
  return [
    types.Dense(jnp.ones((tokens, width)), types.Head(jnp.ones((vocab, width))))
    for width in (16, 24)
  ]


@pytest.mark.parametrize("count", ["four", "six"])
def test_every_matmul_is_compiled_and_nothing_but_sums(head_matmuls, count):
  alone = jax.jit(
    lambda student, teacher: getattr(head_matmuls, count)(
      student, teacher, 16 * 4 * 512
    )
  )
  text = alone.lower(*pair(64, 512)).compile().as_text()
  assert len(re.findall(r"\bdot\(", text)) == {"four": 4, "six": 6}[count]
  wide = r"= f32\[16,512\]\S* (\w[\w-]*)\("
  assert set(re.findall(wide, text)) <= {
    "dot",
    "fusion",
    "parameter",
    "get-tuple-element",
  }


@pytest.mark.parametrize("tokens", [64, 70])
def test_chunks_are_those_of_the_walk(head_matmuls, tokens):
  student, teacher = pair(tokens, 512)
  budget = 16 * 4 * 512

  def walked(student, teacher):
    return losses.walk(
      lambda logits, data, params: (
        losses.forward_kl(logits["student"], logits["teacher"]),
        (),
      ),
      {"student": student, "teacher": teacher},
      (),
      frozen=("teacher",),
      chunk_bytes=budget,
    )[0]

  def logits(fn):
    return set(
      re.findall(r"f32\[(\d+),512\]", str(jax.make_jaxpr(fn)(student, teacher)))
    )

  assert logits(jax.grad(walked)) == logits(
    lambda *streams: head_matmuls.four(*streams, budget)
  )
