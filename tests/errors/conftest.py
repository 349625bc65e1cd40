# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A world in which everything is right, to be copied and then spoiled."""

import contextlib
import http.server
import json
import pathlib
import pydoc_data.topics
import shutil
import threading

import jax
import jaxtyping
import numpy as np
import pytest
import tokenizers as library
from tokenizers import decoders, models, pre_tokenizers, trainers

from jdistill import checkpoint, cli, config, export, start
from jdistill.models import DecoderConfig, Segment, weights

TINY = """\
import dataclasses

from jdistill import beds, cached, config, data, methods, models, optim
from jdistill import rollout, schedules, sharding


def get_config():
  text = data.TextData(
    (data.Source("jsonl:text.jsonl", split="[:75%]"),), seq_len=16, batch_size=8
  )
  held = data.Source("jsonl:text.jsonl", split="[75%:]")
  cfg = config.Config(
    student=config.Cut((0, 2)),
    teachers={"teacher": config.Teacher("teacher")},
    method=methods.KD(),
    data=text,
    evals={"eval": dataclasses.replace(text, sources=(held,))},
    steps=4,
    save_every=2,
  )
  return cfg
"""


def make_tokenizer(directory: pathlib.Path, size: int) -> None:
  """A byte-level BPE, as the two files that transformers reads."""
  made = library.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    show_progress=False,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
  )
  made.train_from_iterator([pydoc_data.topics.topics["types"]], trainer)
  directory.mkdir(exist_ok=True)
  made.save(str(directory / "tokenizer.json"))
  special = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
  fields = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
  (directory / "tokenizer_config.json").write_text(json.dumps(fields))


def make_run(directory: pathlib.Path) -> None:
  """The run of `tiny.py` as it might be after two steps, of zeros."""
  # On one device there is less to slice.
  loaded = config.load("tiny.py", ["--mesh.data", "1"])
  ready = start.prepare(loaded, directory)
  with jax.set_mesh(ready.built.mesh):
    state = jax.tree.map(
      lambda s, to: jax.device_put(np.zeros(s.shape, s.dtype), to),
      ready.built.state_shapes,
      ready.built.state_shardings,
    )
    start.write(loaded, ready.built, ready.tokenizer, directory)
    with checkpoint.Checkpoints(directory / "checkpoints") as saved:
      saved.save(2, state, ready.loader.state())
      saved.wait()
  ready.close()
  (directory / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n')


@pytest.fixture(autouse=True, scope="module")
def _caches(caches):
  """Commands run in this process, and as for users: no types are checked."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def plain_world(tmp_path_factory) -> pathlib.Path:
  """A directory with a config, a teacher, and text."""
  root = tmp_path_factory.mktemp("world")
  (root / "tiny.py").write_text(TINY)
  spec = DecoderConfig(
    vocab_size=320,
    width=16,
    mlp_width=32,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    segments=(Segment.uniform(3),),
  )
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda s: rng.normal(size=s.shape).astype(np.float32), spec.shapes()
  )
  weights.save_huggingface(root / "teacher", spec, params)
  make_tokenizer(root / "teacher", 320)
  text = pydoc_data.topics.topics["types"]
  parts = [text[at : at + 200] for at in range(0, 6400, 200)]
  lines = [json.dumps({"text": part}) for part in parts]
  (root / "text.jsonl").write_text("".join(f"{line}\n" for line in lines))
  (root / "prompts.txt").write_text("Once\nTwice\n")
  export.export(str(root / "teacher"), root / "teacher.gguf", format="gguf")
  return root


@pytest.fixture(scope="session")
def world(plain_world) -> pathlib.Path:
  """The same with a run, and a cache of what the teacher says."""
  root = plain_world
  with contextlib.chdir(root):
    make_run(root / "run")
    argv = ["cache", "tiny.py", "--to", "cache", "--format", "top_k:4"]
    assert cli.main(argv) == 0
  return root


@pytest.fixture
def place(world, tmp_path, monkeypatch, one) -> pathlib.Path:
  """A copy of the world, where the command of a case is typed.

  The directories of many files are there if the command names them.
  """
  root = tmp_path / "here"
  unused = [name for name in ("run", "cache") if name not in one.argv]
  shutil.copytree(world, root, ignore=shutil.ignore_patterns(*unused))
  monkeypatch.chdir(root)
  return root


ANSWERS = {
  "401": (401, '{"error": {"message": "who are you"}}'),
  "404": (404, '{"error": {"message": "no model of that name"}}'),
  "500": (500, '{"error": {"message": "out of memory"}}'),
  "empty": (200, "{}"),
  "html": (200, "<!doctype html><title>Welcome</title>"),
  "html404": (404, "<!doctype html><title>Not Found</title>"),
  "list": (200, '[{"choices": []}]'),
}


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers by the first part of the path."""

  def do_POST(self):
    self.rfile.read(int(self.headers["Content-Length"]))
    code, text = ANSWERS[self.path.split("/")[1]]
    self.send_response(code)
    self.send_header("Content-Length", str(len(text)))
    self.end_headers()
    self.wfile.write(text.encode())

  def log_message(self, *args):
    pass


@pytest.fixture(scope="session")
def server():
  """The url of a server on this machine that never helps."""
  made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=made.serve_forever, daemon=True).start()
  yield f"http://127.0.0.1:{made.server_port}"
  made.shutdown()
  made.server_close()
