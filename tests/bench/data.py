# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The input pipeline: packed tokens a second, and how full the rows are.

  python tests/bench/data.py --tokens 4000000 --text-tokens 1000000

The arm `records` reads token ids from TFDS's ArrayRecord files, the arm `text`
tokenises raw text from JSON lines. A turn opens the data with an empty cache,
draws every batch of one pass, and opens it again. Texts are paragraphs of
Python's own reference; lengths of documents are log-normal about 300 tokens.

Figures of each arm:
  tokens_per_s: of everything, opening (reading, tokenising, packing) included;
    tokens_per_cpu_s likewise, by all threads.
  rows_tokens_per_s: of the batches alone, as every later pass has it.
  open_s, reopen_s: opening without and with the cache of tokens.
  wait: share of the time that a step of `--step-s` seconds, in which the
    process sleeps as before an accelerator, still waits for its batch.
  packing_efficiency: share of the places of all rows that hold a token.
  cut_short: pieces more than the documents need, if only those longer than a
    row are cut; 0.
"""

import argparse
import functools
import json
import os
import pathlib
import time

import measure
import numpy as np

from jdistill import data, tokenizers

ARMS = ("records", "text")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for flag, default in (
    ("tokens", 4_000_000),
    ("text-tokens", 1_000_000),
    ("length", 300),
    ("seq", 1024),
    ("batch", 8),
    ("vocab", 8192),
    ("waits", 40),
    ("passes", 3),
  ):
    parser.add_argument(f"--{flag}", type=int, default=default)
  parser.add_argument("--step-s", type=float, default=0.1)
  measure.add_arguments(parser, repeats=2)
  args = parser.parse_args()
  arms = {name: functools.partial(make_arm, args, name) for name in ARMS}
  repeats = measure.run(args, arms, rounds=args.passes)
  found = {name: figures(repeats, name) for name in ARMS}
  measure.report("data", args, repeats, {"arms": found})


def make_arm(args: argparse.Namespace, name: str) -> measure.Arm:
  path = measure.scratch()
  write = write_records if name == "records" else write_text
  source, tokenizer = write(args, path)
  config = data.TextData(
    (source,), seq_len=args.seq, batch_size=args.batch, epochs=1
  )
  turns = iter(range(1_000_000))

  def work() -> dict:
    cache = path / f"cache_{next(turns)}"
    load = functools.partial(
      data.load, config, tokenizer, seed=0, cache_dir=cache
    )
    loader, open_s, open_cpu_s = measure.timed(load)
    (tokens, pieces), rows_s, rows_cpu_s = measure.timed(lambda: draw(loader))
    loader.close()
    again, reopen_s, _ = measure.timed(load)
    wait = waited(args, again)
    again.close()
    return {
      "tokens_per_s": tokens / (open_s + rows_s),
      "tokens_per_cpu_s": tokens / (open_cpu_s + rows_cpu_s),
      "rows_tokens_per_s": tokens / rows_s,
      "open_s": open_s,
      "reopen_s": reopen_s,
      "wait": wait,
      "packing_efficiency": tokens / (loader.num_rows * args.seq),
      "cut_short": pieces - needed(cache, args.seq),
      "packed_tokens": tokens,
    }

  return measure.Arm(work, {})


def draw(loader: data.Loader) -> tuple[int, int]:
  """Tokens and pieces of documents in one pass."""
  tokens = pieces = 0
  for batch in loader:
    tokens += int((batch["segment_ids"] > 0).sum())
    pieces += int(batch["segment_ids"].max(axis=1).sum())
  return tokens, pieces


def needed(cache: pathlib.Path, seq_len: int) -> int:
  """Pieces of all documents, each of a row's length but a document's last."""
  (offsets,) = cache.glob("*/offsets")
  pairs = np.maximum(np.diff(np.fromfile(offsets, np.int64)) - 1, 0)
  return int((-(-pairs // seq_len)).sum())


def waited(args: argparse.Namespace, loader: data.Loader) -> float:
  """Share of the time that steps of `--step-s` wait, the first left out."""
  next(loader)
  begin, waits = time.perf_counter(), 0.0
  for _ in range(args.waits):
    time.sleep(args.step_s)
    asked = time.perf_counter()
    if next(loader, None) is None:
      break
    waits += time.perf_counter() - asked
  return waits / (time.perf_counter() - begin)


def lengths(args: argparse.Namespace, total: int) -> np.ndarray:
  """Lengths of documents, at least 2, that sum to about `total`."""
  drawn = np.random.default_rng(0).lognormal(
    np.log(args.length), 1.0, size=2 * total // args.length + 1
  )
  drawn = np.maximum(drawn.astype(np.int64), 2)
  return drawn[: int(np.searchsorted(np.cumsum(drawn), total)) + 1]


def write_records(args: argparse.Namespace, path: pathlib.Path):
  """Documents of random ids as a TFDS dataset; needs no TensorFlow."""
  import tensorflow_datasets as tfds

  class Bench(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {"tokens": tfds.features.Sequence(np.int32)}
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      generator = np.random.default_rng(1)
      for number, length in enumerate(lengths(args, args.tokens)):
        ids = generator.integers(args.vocab, size=length, dtype=np.int32)
        yield number, {"tokens": ids}

  # TFDS looks for files beside the code of a builder in a package, and that
  # search wants a library that its own installation does not bring.
  Bench.__module__ = "bench"
  os.environ["TFDS_DATA_DIR"] = str(path)
  Bench(data_dir=str(path), file_format="array_record").download_and_prepare()
  return data.Source("tfds:bench", format="tokens"), None


def write_text(args: argparse.Namespace, path: pathlib.Path):
  """Runs of the reference's words as JSON lines, and a tokenizer for them."""
  from pydoc_data import topics

  text = "\n\n".join(topics.topics.values())
  spots = np.random.default_rng(1)
  with open(path / "documents.jsonl", "w") as file:
    for length in lengths(args, args.text_tokens).tolist():
      characters = min(4 * length, len(text) - 1)
      start = int(spots.integers(len(text) - characters))
      line = {"text": text[start : start + characters]}
      file.write(json.dumps(line) + "\n")
  source = data.Source(f"jsonl:{path / 'documents.jsonl'}")
  return source, train_tokenizer(args.vocab, list(topics.topics.values()), path)


def train_tokenizer(vocab: int, texts: list[str], path: pathlib.Path):
  """A byte-level BPE, loaded back as the product loads any."""
  import tokenizers as library
  from tokenizers import decoders, models, pre_tokenizers, trainers
  from transformers import PreTrainedTokenizerFast

  made = library.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab,
    show_progress=False,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  made.train_from_iterator(texts, trainer)
  PreTrainedTokenizerFast(
    tokenizer_object=made, eos_token="<|endoftext|>"
  ).save_pretrained(path / "tokenizer")
  return tokenizers.load(path / "tokenizer")


def figures(repeats: measure.Repeats, name: str) -> dict:
  found = {}
  for key in repeats[0][name].turns[0]:
    if key not in ("wall_s", "cpu_s"):
      found |= measure.ranged(key, [one[name].median(key) for one in repeats])
  return found | measure.fact(repeats, name, "peak_rss_mib")


if __name__ == "__main__":
  main()
