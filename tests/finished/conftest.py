# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny teacher with its tokenizer, and a run that it has taught."""

import os
import pydoc_data.topics
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as library
from tokenizers import decoders, models, pre_tokenizers, trainers

from jdistill import pretrained, tokenizers, types
from jdistill.models import DecoderConfig, Rope, Segment, weights

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content']"
  " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
  "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCAB = 512  # a few more than there are tokens


def train_tokenizer(texts, size):
  import transformers

  made = library.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    show_progress=False,
    special_tokens=SPECIAL,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  made.train_from_iterator(texts, trainer)
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=made,
    bos_token="<|im_start|>",
    eos_token="<|im_end|>",
    chat_template=CHATML,
    clean_up_tokenization_spaces=False,
  )


def save_model(directory, tokenizer, *, seed=0):
  """A drawn model in a Hugging Face directory."""
  shape = DecoderConfig(
    vocab_size=VOCAB,
    width=32,
    mlp_width=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    segments=(Segment.uniform(4),),
    ropes=(Rope(theta=100.0),),
  )
  # Larger weights than usual, so that the text matters.
  params = jax.tree.map(
    lambda p: 4 * p if p.ndim > 2 else p, shape.init(jax.random.key(seed))
  )
  params["embedding"]["weight"] *= 20
  weights.save_huggingface(
    directory,
    shape,
    params,
    special_ids={"eos_token_id": tokenizer.eos_token_id},
  )
  (directory / "README.md").write_text("---\nlicense: mit\n---\n")
  tokenizers.save(tokenizer, directory)
  return directory


@pytest.fixture(autouse=True, scope="module")
def _caches(caches):
  """Commands run in this process."""


@pytest.fixture(scope="session")
def texts():
  return list(pydoc_data.topics.topics.values())[:12]


@pytest.fixture(scope="session")
def home(tmp_path_factory, texts):
  """A directory with a cache and with texts to learn from."""
  path = tmp_path_factory.mktemp("home")
  (path / "train").mkdir()
  for number, text in enumerate(texts[:10]):
    (path / "train" / f"{number}.txt").write_text(text[:3000])
  (path / "held.txt").write_text(texts[10][:3000])
  (path / "other.txt").write_text(texts[11][:2000])
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JDISTILL_CACHE", str(path / "cache"))
    yield path


@pytest.fixture(scope="session")
def tokenizer(texts):
  return train_tokenizer(texts, 500)


@pytest.fixture(scope="session")
def teacher(home, tokenizer):
  """A reference to the teacher."""
  return str(save_model(home / "teacher", tokenizer))


@pytest.fixture(scope="session")
def other_model(home, texts):
  """A reference to a model of another vocabulary."""
  tokenizer = train_tokenizer(texts[6:], 400)
  return str(save_model(home / "stranger", tokenizer, seed=1))


DRAFT = """models.FeatureDraft(
      vocab_size=512,
      width=32,
      mlp_width=48,
      num_heads=4,
      num_kv_heads=2,
      head_dim=8,
      sampling=2,
      noise=0.0,
    )"""
CONFIG = """\
from jdistill import config, data, methods, models, optim, schedules


def rows(ref):
  return data.TextData((data.Source(ref),), seq_len=32, batch_size=8)


def get_config():
  return config.Config(
    student=config.Cut(2),
    teachers={{"teacher": config.Teacher("{home}/teacher")}},
    method=methods.KD(),
    data=rows("text:{home}/train"),
    evals={{
      "eval": rows("text:{home}/held.txt"),
      "other": rows("text:{home}/other.txt"),
    }},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=1)),
    steps=4,
    eval_every=2,
    save_every=2,
    log_every=1,
  )
"""


def train(home, config, name, text):
  """The directory of a finished run, made by the command itself."""
  (home / config).write_text(text)
  command = ["train", str(home / config), "--workdir", str(home / name)]
  made = subprocess.run(
    [sys.executable, "-m", "jdistill.cli", *command],
    env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert made.returncode == 0, made.stderr
  return home / name


@pytest.fixture(scope="session")
def run(home, teacher):
  """A run that cuts its student out of the teacher."""
  del teacher
  return train(home, "tiny.py", "run", CONFIG.format(home=home))


@pytest.fixture(scope="session")
def draft(home, teacher):
  """A run whose student goes by the teacher's features."""
  del teacher
  text = CONFIG.format(home=home)
  text = text.replace("methods.KD()", "methods.EAGLE()")
  text = text.replace("config.Cut(2)", f"config.Fresh({DRAFT})")
  return train(home, "draft.py", "draft", text)


@pytest.fixture(scope="session")
def logits_of():
  """`logits_of(ref, ids) -> [n, V]`, of the whole text read at once."""
  width = 64
  models = {}

  def logits_of(ref, ids):
    if ref not in models:
      found = pretrained.find(ref)
      arch = found.architecture
      call = jax.jit(lambda p, v: arch.bind(p)(v).logits)
      models[ref] = call, found.params()
    call, params = models[ref]
    # What is behind the text cannot be seen from inside it.
    tokens = np.zeros((1, width), np.int32)
    tokens[0, : len(ids)] = ids
    tokens = jnp.asarray(tokens)
    places = jnp.arange(width)[None]
    view = types.Tokens(tokens, tokens, places * 0.0, places, places * 0 + 1)
    return np.asarray(call(params, view)[0, : len(ids)], np.float64)

  return logits_of
