# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A small world to train in: teacher, tokenizer and text made on the spot."""

import dataclasses
import json
import pathlib
import pydoc_data.topics

import jax
import pytest
import tokenizers as library
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from jdistill import config, data, methods, optim
from jdistill.models import DecoderConfig, Segment, weights

TEXTS = list(pydoc_data.topics.topics.values())[:12]


@pytest.fixture(autouse=True, scope="module")
def _caches(caches):
  """The runs here are much alike."""


def make_tokenizer(directory: pathlib.Path, size: int) -> None:
  """Trains a byte-level BPE of `size` tokens and saves it."""
  tokenizer = library.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    show_progress=False,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  tokenizer.train_from_iterator(TEXTS, trainer)
  PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    eos_token="<|endoftext|>",
    bos_token="<|endoftext|>",
  ).save_pretrained(str(directory))


def make_teacher(directory: pathlib.Path, *, vocab: int = 320, seed: int = 1):
  """A decoder with random weights as a Hugging Face directory."""
  spec = DecoderConfig(
    vocab_size=vocab,
    width=16,
    mlp_width=32,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    segments=(Segment.uniform(3),),
  )
  # Spread, so that the teacher prefers some tokens.
  params = jax.tree.map(lambda x: 2 * x, spec.init(jax.random.key(seed)))
  params["embedding"]["weight"] *= 10  # opinions that a student can learn
  weights.save_huggingface(directory, spec, params)
  return spec


@dataclasses.dataclass(frozen=True)
class World:
  """Where the things of a run are."""

  root: pathlib.Path

  @property
  def teacher(self) -> pathlib.Path:
    return self.root / "teacher"

  @property
  def text(self) -> str:
    return f"jsonl:{self.root / 'text.jsonl'}"

  def config(self, **changes) -> config.Config:
    """A run of a second, changed as asked."""
    text = data.TextData(
      (data.Source(self.text, split="[:75%]"),), seq_len=16, batch_size=8
    )
    held = dataclasses.replace(
      text, sources=(data.Source(self.text, split="[98%:]"),)
    )
    base = config.Config(
      student=config.Cut((0, 2)),
      teachers={"teacher": config.Teacher(str(self.teacher))},
      method=methods.KD(),
      data=text,
      evals={"eval": held},
      optimizer=optim.AdamW(lr=3e-3),
      steps=4,
      log_every=1,
      eval_every=4,
      save_every=2,
    )
    return dataclasses.replace(base, **changes)

  def file(self, directory: pathlib.Path, body: str = "") -> pathlib.Path:
    """The same run as a config file; `body` may change `cfg`."""
    path = directory / "tiny.py"
    path.write_text(
      f"""
import dataclasses
from jdistill import config, data, methods, optim, schedules

def get_config():
  text = data.TextData(
    (data.Source({self.text!r}, split="[:75%]"),), seq_len=16, batch_size=8
  )
  held = dataclasses.replace(
    text, sources=(data.Source({self.text!r}, split="[98%:]"),)
  )
  cfg = config.Config(
    student=config.Cut((0, 2)),
    teachers={{"teacher": config.Teacher({str(self.teacher)!r})}},
    method=methods.KD(),
    data=text,
    evals={{"eval": held}},
    optimizer=optim.AdamW(lr=3e-3),
    steps=4,
    log_every=1,
    eval_every=4,
    save_every=2,
  )
  {body}
  return cfg
"""
    )
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
  root = tmp_path_factory.mktemp("world")
  make_teacher(root / "teacher")
  make_tokenizer(root / "teacher", 320)
  rows = [
    {"text": text[at : at + 300]}
    for text in TEXTS
    for at in range(0, min(len(text), 3000), 300)
  ]
  (root / "text.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
  return World(root)


@pytest.fixture(scope="session")
def make_world():
  """The parts, for worlds that do not fit together."""
  return make_teacher, make_tokenizer
