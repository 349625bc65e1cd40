# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A server of a Markov chain, in the forms of OpenAI, vLLM and llama.cpp.

python server.py TABLE.npy LOG PORT [--key KEY] [--busy N] [--slow SECONDS]

The table [V, V] holds log-probabilities of what follows each token; texts are
numbers with spaces between. Every request is a line of the log. The first N
requests are told to come back in a quarter of a second.
"""

import argparse
import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("table")
parser.add_argument("log")
parser.add_argument("port", type=int)
parser.add_argument("--key")
parser.add_argument("--busy", type=int, default=0)
parser.add_argument("--slow", type=float, default=0.0)
ARGS = parser.parse_args()
TABLE = np.load(ARGS.table)
LOCK, SEEN = threading.Lock(), []


def likeliest(token: int, k: int) -> list[tuple[int, float]]:
  best = np.argsort(-TABLE[token], kind="stable")[:k]
  return [(int(i), float(TABLE[token, i])) for i in best]


def written(prompt: list[int], body) -> list[int]:
  rng = np.random.default_rng(body.get("seed", 0))
  text = list(prompt)
  for _ in range(body["max_tokens"]):
    logs = TABLE[text[-1]]
    if body["temperature"]:
      logs = logs / body["temperature"] + rng.gumbel(size=len(logs))
    text.append(int(logs.argmax()))
  return text[len(prompt) :]


def completion(body):
  prompt = body["prompt"]
  ids = prompt if isinstance(prompt, list) else list(map(int, prompt.split()))
  new = written(ids, body)
  choice = {"index": 0, "text": "".join(f" {t}" for t in new)}
  choice["finish_reason"] = "length"
  if "prompt_logprobs" in body:
    k = body["prompt_logprobs"]
    choice["prompt_logprobs"] = [None]
    for before, came in itertools.pairwise(ids):
      # As vLLM does, the token that came is there, wherever it stands.
      said = {came: float(TABLE[before, came]), **dict(likeliest(before, k))}
      choice["prompt_logprobs"].append(
        {str(i): {"logprob": x} for i, x in said.items()}
      )
  usage = {"prompt_tokens": len(ids), "completion_tokens": len(new)}
  return {"object": "text_completion", "choices": [choice], "usage": usage}


def chat(body):
  ids = [int(t) for turn in body["messages"] for t in turn["content"].split()]
  found = completion({**body, "prompt": ids})
  text = found["choices"][0].pop("text")
  found["choices"][0]["message"] = {"role": "assistant", "content": text}
  return found


def n_probs(body):
  top = likeliest(body["prompt"][-1], body["n_probs"])
  top = [{"id": i, "logprob": x} for i, x in top]
  said = {"completion_probabilities": [{"top_logprobs": top}]}
  return {**said, "tokens_evaluated": len(body["prompt"]),
          "tokens_predicted": 1}  # fmt: skip


PATHS = {
  "/v1/completions": completion,
  "/v1/chat/completions": chat,
  "/completion": n_probs,
}


class Handler(BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    with LOCK:
      SEEN.append(body)
      number = len(SEEN)
      with open(ARGS.log, "a") as log:
        log.write(json.dumps([time.time(), self.path, body]) + "\n")
    given = self.headers.get("Authorization")
    if ARGS.key and given != f"Bearer {ARGS.key}":
      self.say(401, {"error": {"message": f"wrong key: {given}"}})
    elif body.get("model", "chain") != "chain":
      self.say(404, {"error": {"message": "the model does not exist"}})
    elif number <= ARGS.busy:
      self.say(429, {"error": {"message": "busy"}}, **{"Retry-After": "0.25"})
    else:
      time.sleep(ARGS.slow)
      try:
        self.say(200, PATHS[self.path](body))
      except (KeyError, IndexError, ValueError) as error:
        self.say(400, {"error": {"message": f"{type(error).__name__} {error}"}})

  def say(self, code, answer, **headers):
    text = json.dumps(answer).encode()
    self.send_response(code)
    for name, value in headers.items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(text)))
    self.end_headers()
    self.wfile.write(text)

  def log_message(self, *args):
    pass


ThreadingHTTPServer(("127.0.0.1", ARGS.port), Handler).serve_forever()
