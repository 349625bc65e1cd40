# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What each format of cached targets costs, keeps and loses, and how fast.

  python tests/bench/cache.py --formats top_k:12 top_k:64 sampled:50 hidden:int8

Each arm writes a cache of `--rows` rows, compares it with what the teacher says
of them, and reads them in its turns. The arm `step` is the train step of
`--config`, whose teacher and data are meant. Figures of each format:
  bytes_per_token: of the records; files add some 60 bytes to each.
  bias: the sum over all ids of |expected share - p|, as a student of full
    vocabulary is taught (top_k: renormalised), mean over tokens.
  noise: the same of the shares themselves; more than the bias where they vary.
  kl: KL(p || kept) in nats, where every id has a probability.
  write_tokens_per_s, read_tokens_per_s; read_over_step: of reading and the
    train step.
"""

import argparse
import contextlib
import functools
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import measure
import numpy as np

from jdistill import (
  cache_command,
  cache_job,
  cached,
  config,
  losses,
  run,
  sharding,
  start,
)

FORMATS = ("top_k:12", "top_k:64", "sampled:50", "hidden:bfloat16",
           "hidden:int8")  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/quickstart.py")
  parser.add_argument("--formats", nargs="+", default=FORMATS)
  parser.add_argument("--rows", type=int, default=8)
  parser.add_argument("--rounds", type=int, default=3)
  measure.add_arguments(parser, repeats=1)
  args = parser.parse_args()
  arms = {
    name: functools.partial(keep, args, name) for name in args.formats
  } | {"step": functools.partial(step, args)}
  repeats = measure.run(args, arms, rounds=args.rounds)
  speeds = {
    name: [one[name].median("tokens_per_s") for one in repeats] for name in arms
  }
  found = {}
  for name in args.formats:
    facts = repeats[0][name].facts
    found[name] = {
      **{k: v for k, v in facts.items() if k != "peak_rss_mib"},
      **measure.ranged("read_tokens_per_s", speeds[name]),
      **measure.ranged(
        "read_over_step",
        [a / b for a, b in zip(speeds[name], speeds["step"], strict=True)],
      ),
    }
  steps = measure.ranged("step_tokens_per_s", speeds["step"])
  measure.report("cache", args, repeats, {**steps, "arms": found})


def made(args: argparse.Namespace) -> config.Config:
  found = config.load(args.config)
  assert isinstance(found, config.Config)
  return found


def keep(args: argparse.Namespace, name: str) -> measure.Arm:
  """A cache of the first rows, and its turns of reading."""
  format, settings = cache_command.parse_format(name), made(args)
  stack = contextlib.ExitStack()
  directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
  begun = time.perf_counter()
  told = cache_job.cache(
    settings, directory, format, max_rows=args.rows, log=lambda _: None
  )
  took = time.perf_counter() - begun
  cache = cached.Cache(directory)
  said = cached.Said(cache, format)
  job = cache_job.Job.prepare(settings, directory, format, "teacher", None)
  rows = [job.texts[0].rows[i] for i in range(args.rows)]
  facts = {
    "bytes_per_token": size(rows, said.cache),
    "write_tokens_per_s": told["tokens"] / took,
    **lost(job, said, rows),
  }

  def work(stack=stack):  # whose files stay for as long as this
    del stack
    return read(rows, said)

  return measure.Arm(work, facts)


def size(rows, cache: cached.Cache) -> float:
  """Bytes of the rows' records, for each position that counts."""
  records = [cache.read(cached.row_key(row)) for row in rows]
  counted = sum(np.count_nonzero(row["mask"]) for row in rows)
  return sum(len(record or b"") for record in records) / counted


def read(rows, said: cached.Said):
  turns, begun = 20, time.perf_counter()
  for _ in range(turns):
    for row in rows:
      said.row(row)
  seconds = time.perf_counter() - begun
  counted = sum(np.count_nonzero(row["mask"]) for row in rows)
  return {"tokens_per_s": turns * counted / seconds}


def lost(job: cache_job.Job, said: cached.Said, rows) -> dict[str, float]:
  """How far what is kept is from what the teacher says."""
  params = job.load()
  model = job.found.architecture.for_evaluation().bind(params)
  sums: dict[str, float] = {}
  count = 0
  for row in rows:
    view = run.to_batch({k: jnp.asarray(v)[None] for k, v in row.items()})
    logits = model(view["student"]).logits[0]
    p, kept = jax.nn.softmax(logits), said.row(row)
    counted = np.asarray(row["mask"]) != 0
    for key, values in _lost(said, kept, p, logits, model, view).items():
      sums[key] = sums.get(key, 0.0) + float(values[counted].sum())
    count += counted.sum()
  return {key: value / count for key, value in sums.items()}


def _lost(said, kept, p, logits, model, view):
  if isinstance(said.format, cached.Hidden):
    head = model(view["student"]).head
    hidden = jnp.asarray(kept["hidden"], jnp.float32)
    own = head(hidden)
    kl = losses.forward_kl(own, logits)
    gap = jnp.abs(jax.nn.softmax(own) - p).sum(-1)
    return {"kl": kl, "bias": gap, "noise": gap}
  shares = np.exp(kept["log_probs"])
  shares = shares / shares.sum(-1, keepdims=True)
  at = np.arange(len(p))[:, None]
  dense = jnp.zeros_like(p).at[at, kept["ids"]].add(shares)
  noise = jnp.abs(dense - p).sum(-1)
  bias = noise
  if isinstance(said.format, cached.Sampled):
    bias = jnp.zeros_like(noise)  # by construction
  return {"bias": bias, "noise": noise}


def step(args: argparse.Namespace) -> measure.Arm:
  """The train step with the teacher in it."""
  settings = made(args)
  ready = start.prepare(settings, None)
  built = ready.built
  with jax.set_mesh(built.mesh):
    teachers = built.load_teachers()
    state = built.init_state(teachers)
  held = [state]

  def work():
    with jax.set_mesh(built.mesh):
      batch = run.to_batch(next(ready.loader))
      placed = sharding.place_rows(batch, built.mesh)
      begun = time.perf_counter()
      held[0], found = built.train_step(held[0], teachers, placed)
      jax.block_until_ready(found)
    seconds = time.perf_counter() - begun
    return {"tokens_per_s": batch["student"].mask.size / seconds}

  return measure.Arm(work, {})


if __name__ == "__main__":
  main()
