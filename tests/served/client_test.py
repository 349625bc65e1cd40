# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Against a server in a process of its own, killed and started again."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from jdistill import cli, data, served, types

V = 7
RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(V, V))
TABLE = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
KEY = "secret-of-nobody"


def client(server, kept=None, **changes):
  fields = {"url": server.url, "first_wait": 0.05, **changes}
  return served.Client(served.Endpoint(**fields), kept)


def greedy(prompt: str, count: int) -> str:
  text = [int(t) for t in prompt.split()]
  for _ in range(count):
    text.append(int(TABLE[text[-1]].argmax()))
  return "".join(f" {t}" for t in text[-count:])


PROMPTS = [{"prompt": f"{i % V} {i // V % V}"} for i in range(40)]


def test_answers_in_order_with_what_they_cost(serve):
  prices = {"input_price": 1000.0, "output_price": 4000.0}
  with client(serve(TABLE), **prices) as asked:
    found = list(served.complete(asked, PROMPTS, max_tokens=3, temperature=0.0))
  for given, answer in zip(PROMPTS, found, strict=True):
    assert answer.text == greedy(given["prompt"], 3)
    assert (answer.tokens, answer.finish) == (3, "length")
  assert (asked.totals.requests, asked.totals.kept) == (40, 0)
  assert asked.totals.prompt_tokens == 80
  assert asked.totals.completion_tokens == 120
  assert asked.totals.cost == pytest.approx(0.08 + 0.48)


def test_it_is_asked_again_after_the_last_answer_was_taken(serve):
  with client(serve(TABLE)) as asked:
    for _ in range(2):
      answers = served.complete(asked, PROMPTS[:3], max_tokens=2)
      assert len([next(answers) for _ in range(3)]) == 3
      answers.close()  # its end was never asked for


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp"])
def test_the_likeliest_tokens_of_given_texts(serve, dialect):
  texts = [RNG.integers(V, size=n).astype(np.int32) for n in (5, 2, 9)]
  counted = [RNG.random(len(text) - 1) < 0.7 for text in texts]
  with client(serve(TABLE)) as asked:
    found = list(
      served.top_log_probs(asked, texts, 3, dialect=dialect, counted=counted)
    )
  for text, places, (ids, log_probs) in zip(texts, counted, found, strict=True):
    rows = TABLE[text[:-1]][places]
    best = np.argsort(-rows, axis=1)[:, :3]
    np.testing.assert_array_equal(ids, best)
    expected = np.take_along_axis(rows, best, 1)
    np.testing.assert_allclose(log_probs, expected, rtol=1e-6)


def test_places_that_the_server_does_not_list():
  ids, log_probs = served.top._arrays([[(4, -0.5)], []], 2)
  np.testing.assert_array_equal(ids, [[4, 0], [0, 0]])
  np.testing.assert_array_equal(log_probs, [[-0.5, -np.inf], [-np.inf] * 2])


def test_a_server_that_is_killed_and_comes_back(serve, tmp_path):
  server = serve(TABLE, "--slow", "0.02")
  kept = served.Kept(tmp_path / "answers")

  def fall():
    while len(server.asked()) < 12:
      time.sleep(0.01)
    server.kill()
    time.sleep(0.3)
    server.start()

  falling = threading.Thread(target=fall)
  falling.start()
  with client(server, kept, concurrency=4) as asked:
    found = list(served.complete(asked, PROMPTS, max_tokens=3, temperature=0.0))
  falling.join()
  assert [a.text for a in found] == [greedy(p["prompt"], 3) for p in PROMPTS]
  assert asked.totals.retries > 0
  assert asked.totals.requests == 40
  assert len(served.Kept(tmp_path / "answers")) == 40


def test_nothing_is_asked_twice(serve, tmp_path):
  server, path = serve(TABLE), tmp_path / "answers"
  with client(server, served.Kept(path)) as first:
    half = list(served.complete(first, PROMPTS[:20], temperature=1.0))
  with client(server, served.Kept(path)) as again:
    found = list(served.complete(again, PROMPTS, temperature=1.0))
  assert found[:20] == half
  assert (again.totals.requests, again.totals.kept) == (20, 20)
  assert len(server.asked()) == 40
  with client(server, served.Kept(path)) as other:
    list(served.complete(other, PROMPTS[:1], temperature=0.5))
  assert other.totals.requests == 1  # other settings are another question


def test_samples_of_one_prompt_differ(serve):
  with client(serve(TABLE)) as asked:
    found = list(served.complete(asked, PROMPTS[:1] * 8, temperature=1.0))
  assert len({answer.text for answer in found}) > 1


def test_a_busy_server_is_asked_later(serve):
  server = serve(TABLE, "--busy", "2")
  with client(server, concurrency=1) as asked:
    list(served.complete(asked, PROMPTS[:1], temperature=0.0))
  times = [at for at, *_ in server.asked()]
  assert len(times) == 3
  assert min(np.diff(times)) >= 0.25  # as it asked for
  assert asked.totals.retries == 2


@pytest.mark.parametrize(
  ("changes", "least"),
  [
    ({"requests_per_minute": 600.0}, 0.5),
    # 4 tokens each, of which the first request knows nothing.
    ({"tokens_per_minute": 2400.0, "concurrency": 1}, 0.5),
  ],
)
def test_limits_of_a_minute(serve, changes, least):
  server = serve(TABLE)
  with client(server, **changes) as asked:
    list(served.complete(asked, PROMPTS[:6], max_tokens=2, temperature=0.0))
  times = [at for at, *_ in server.asked()]
  assert max(times) - min(times) >= 0.9 * least


@pytest.mark.parametrize(
  ("changes", "path", "said"),
  [
    ({}, "/completions", "401.*name the environment variable.*key_from"),
    ({"key_from": "KEY_OF_TEST"}, "/completions", "401.*is that of KEY_OF"),
    ({"model": "other", "key_from": "RIGHT_KEY"}, "/completions",
     "404: the model does not exist"),
    ({"key_from": "RIGHT_KEY"}, "/nothing", "400: KeyError"),
  ],
)  # fmt: skip
def test_faults_of_the_caller_stop_at_once(
  serve, monkeypatch, changes, path, said
):
  monkeypatch.setenv("KEY_OF_TEST", "not-" + KEY)
  monkeypatch.setenv("RIGHT_KEY", KEY)
  server = serve(TABLE, "--key", KEY)
  with (
    client(server, **changes) as asked,
    pytest.raises(types.UserError, match=said) as caught,
  ):
    asked.ask(path, {"prompt": "1", "max_tokens": 1, "temperature": 0})
  assert len(server.asked()) == 1
  assert KEY not in str(caught.value)


def test_a_server_that_is_not_there(tmp_path):
  gone = served.Endpoint("http://127.0.0.1:9/v1", attempts=3, first_wait=0.01)
  with (
    served.Client(gone) as asked,
    pytest.raises(types.UserError, match=r"after 3 attempts.*refused"),
  ):
    list(served.complete(asked, PROMPTS))


@pytest.mark.parametrize(
  ("read", "said"),
  [
    (lambda a: served.top._prompt_logprobs(a, "here", 2), "not of each token"),
    (lambda a: served.top._n_probs(a, "here"), "nothing in completion_prob"),
    (lambda a: served.answers._answer({"choices": []}, "here", False),
     "has no text"),
  ],
)  # fmt: skip
def test_servers_that_do_not_tell(serve, read, said):
  with client(serve(TABLE)) as asked:
    body = {"prompt": [1, 2], "max_tokens": 1, "temperature": 0}
    answer = asked.ask("/completions", body)
  with pytest.raises(types.UserError, match=f"here: .*{said}"):
    read(answer)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"url": "localhost:8000"}, "expected such as http"),
    ({"url": f"http://me:{KEY}@host/v1"}, "the url of host has a user"),
    ({"url": f"http://host/v1?key={KEY}"}, "query"),
    ({"concurrency": 0}, "concurrency is 0"),
    ({"requests_per_minute": 0.0}, "requests_per_minute is 0"),
    ({"input_price": -1.0}, "input_price is -1"),
  ],
)
def test_endpoints_that_cannot_be(changes, said):
  with pytest.raises(types.UserError, match=said) as caught:
    served.Endpoint(**{"url": "http://host/v1", **changes})
  assert KEY not in str(caught.value)


def test_a_key_that_is_not_set(monkeypatch):
  monkeypatch.delenv("NO_SUCH_KEY", raising=False)
  with pytest.raises(types.UserError, match="NO_SUCH_KEY"):
    served.Client(served.Endpoint("http://host/v1", key_from="NO_SUCH_KEY"))


def test_a_file_of_something_else(tmp_path):
  path = tmp_path / "answers"
  path.write_text("no answers, but text that is long enough to be a file" * 99)
  with pytest.raises(types.UserError, match="cannot be used to keep answers"):
    served.Kept(path)


def test_the_command_goes_on_and_its_rows_are_learnt(
  serve, tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv("KEY_OF_TEST", KEY)
  server = serve(TABLE, "--key", KEY)
  prompts, to = tmp_path / "p.jsonl", tmp_path / "out.jsonl"
  given = [
    {"prompt": "1 2"},
    {"messages": [{"role": "user", "content": "3"}]},
    {"prompt": "4"},
  ]
  prompts.write_text("".join(json.dumps(g) + "\n" for g in given))
  words = ["ask", server.url, "--prompts", str(prompts), "--to", str(to)]
  words += ["--num-samples", "2", "--max-new-tokens", "4", "--temperature"]
  words += ["1", "--key-from", "KEY_OF_TEST", "--input-price", "5"]
  assert cli.main(words) == 0
  assert "6 answers in" in capsys.readouterr().err
  whole = to.read_text()
  rows = [json.loads(line) for line in whole.splitlines()]
  assert [row["sample"] for row in rows] == [0, 1] * 3
  assert rows[2]["messages"] == given[1]["messages"]
  assert rows[0]["by"]["url"] == server.url
  assert all(len(row["text"].split()) == 4 for row in rows)
  # Killed while the fourth was written, the answers there.
  to.unlink()
  part = whole[: whole.index(json.dumps(rows[3])) + 20]
  to.with_name("out.jsonl.part").write_text(part)
  assert cli.main(words) == 0
  assert to.read_text() == whole
  assert "0 answers in 0 s, 3 kept from before" in capsys.readouterr().err
  assert len(server.asked()) == 6
  for path in tmp_path.iterdir():
    if path != server.log:
      assert KEY.encode() not in path.read_bytes()
  [source] = data.TextData(
    (data.Source(f"jsonl:{to}", format="completion"),)
  ).sources
  corpus = data.corpus.open_corpus(source)
  assert [corpus[i].answer for i in range(6)] == [row["text"] for row in rows]
  assert corpus[0].ended is False


def test_a_wrong_key_ends_with_one_message(serve, tmp_path, capsys):
  server = serve(TABLE, "--key", KEY)
  prompts = tmp_path / "p.txt"
  prompts.write_text("1\n2\n")
  assert cli.main(["ask", server.url, "--prompts", str(prompts)]) == 2
  said = capsys.readouterr().err.splitlines()[-1]
  assert said.startswith(f"jdistill: {server.url}/completions: the server")


@pytest.mark.slow
def test_a_command_that_is_killed_pays_for_what_was_under_way_alone(
  serve, tmp_path
):
  server = serve(TABLE, "--slow", "0.2")
  prompts, to = tmp_path / "p.txt", tmp_path / "out.jsonl"
  prompts.write_text("".join(f"{i % V} {i // V % V}\n" for i in range(40)))
  words = [sys.executable, "-m", "jdistill.cli", "ask", server.url]
  words += ["--prompts", str(prompts), "--to", str(to), "--temperature", "0"]
  words += ["--max-new-tokens", "3", "--concurrency", "2"]
  process = subprocess.Popen(words)
  while len(server.asked()) < 12:
    time.sleep(0.02)
  process.kill()
  process.wait()
  subprocess.run(words, check=True)
  assert 40 <= len(server.asked()) <= 42
  texts = [json.loads(line)["text"] for line in to.read_text().splitlines()]
  assert texts == [greedy(given["prompt"], 3) for given in PROMPTS]
