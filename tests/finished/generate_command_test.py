# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest

from jdistill import (
  cli,
  config,
  data,
  methods,
  metrics,
  optim,
  tokenizers,
  train,
)
from jdistill.sampling import Sampling

CHAT = [
  {"role": "system", "content": "be brief"},
  {"role": "user", "content": "hello"},
]
PROMPTS = [
  {"prompt": "The for statement"},
  {"prompt": "hello"},
  {"messages": CHAT},
  {"prompt": "A class is a thing with attributes and"},
  {"prompt": "x"},
]
GREEDY = ("--temperature", "0", "--max-new-tokens", "8")


@pytest.fixture
def prompts(tmp_path):
  path = tmp_path / "prompts.jsonl"
  path.write_text("\n\n".join(map(json.dumps, PROMPTS)) + "\n")
  return path


def rows_of(capsys):
  return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_each_prompt_of_a_file_gets_a_row(teacher, prompts, logits_of, capsys):
  argv = ["generate", teacher, "--prompts", str(prompts), *GREEDY]
  assert cli.main([*argv, "--batch-size", "2"]) == 0
  rows = rows_of(capsys)
  assert [{k: r[k] for k in g} for r, g in zip(rows, PROMPTS, strict=True)] == (
    PROMPTS
  )
  tokenizer = tokenizers.load(teacher)
  for row in rows:
    text = row.get("prompt") or (
      "<|im_start|>system\nbe brief<|im_end|>\n"
      "<|im_start|>user\nhello<|im_end|>"
      "\n<|im_start|>assistant\n"
    )
    ids = tokenizer.encode(text)
    start, log_probs = len(ids), []
    while len(ids) < start + 8:
      logits = logits_of(teacher, ids)[-1]
      ids.append(int(logits.argmax()))
      log_probs.append(logits.max() - np.logaddexp.reduce(logits))
      if ids[-1] == tokenizer.eos_token_id:
        break
    ended = ids[-1] == tokenizer.eos_token_id
    assert row["finish"] == ("end" if ended else "length")
    assert row["tokens"] == len(log_probs)
    assert row["text"] == tokenizer.decode(
      ids[start:], skip_special_tokens=True
    )
    assert abs(row["log_prob_sum"] - sum(log_probs)) < 1e-3
    assert abs(row["log_prob_mean"] - np.mean(log_probs)) < 1e-4


@pytest.mark.slow
def test_batches_change_nothing_and_files_are_written(
  teacher, prompts, tmp_path, capsys
):
  argv = ["generate", teacher, "--prompts", str(prompts), "--seed", "3"]
  argv += ["--max-new-tokens", "6", "--temperature", "1", "--top-p", "0.9"]
  out = tmp_path / "out.jsonl"
  assert cli.main([*argv, "--batch-size", "2"]) == 0
  small = rows_of(capsys)
  assert cli.main([*argv, "--batch-size", "16", "--to", str(out)]) == 0
  assert not capsys.readouterr().out
  large = [json.loads(line) for line in out.read_text().splitlines()]
  assert [row["text"] for row in small] == [row["text"] for row in large]
  assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_a_file_goes_on_where_it_was_left(teacher, prompts, tmp_path, capsys):
  out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
  part = tmp_path / "out.jsonl.part"
  argv = ["generate", teacher, "--prompts", str(prompts), "--seed", "3"]
  argv += ["--max-new-tokens", "4", "--temperature", "1", "--batch-size", "4"]
  argv += ["--num-samples", "2"]
  assert cli.main([*argv, "--to", str(whole)]) == 0
  lines = whole.read_text().splitlines(keepends=True)
  rows = [json.loads(line) for line in lines]
  assert [row["sample"] for row in rows] == [0, 1] * len(PROMPTS)
  assert all(
    a["text"] != b["text"] for a, b in zip(rows[::2], rows[1::2], strict=True)
  )
  assert rows[0]["by"]["model"] == teacher
  assert rows[0]["by"]["seed"] == 3
  assert rows[0]["by"]["temperature"] == 1.0
  # Killed after three rows, in the middle of the next.
  part.write_text("".join(lines[:3]) + lines[3][:20])
  assert cli.main([*argv, "--to", str(out)]) == 0
  found = out.read_text().splitlines(keepends=True)
  assert found[:3] == lines[:3]
  texts = [json.loads(line)["text"] for line in found]
  assert texts == [row["text"] for row in rows]
  assert not part.exists()
  assert "3 of 10 answers are there already" in capsys.readouterr().err
  before = out.read_bytes()
  assert cli.main([*argv, "--to", str(out)]) == 0
  assert out.read_bytes() == before
  assert cli.main([*argv, "--to", str(out), "--temperature", "0.5"]) == 2
  said = capsys.readouterr().err
  assert "out.jsonl:1: found by" in said
  assert "another job" in said
  assert out.read_bytes() == before


@pytest.mark.slow
def test_shards_together_are_the_whole(teacher, prompts, tmp_path):
  argv = ["generate", teacher, "--prompts", str(prompts), "--num-samples", "3"]
  argv += ["--max-new-tokens", "4", "--temperature", "1", "--to"]
  assert cli.main([*argv, str(tmp_path / "whole.jsonl")]) == 0
  texts = []
  for shard in range(2):
    path = tmp_path / f"{shard}.jsonl"
    assert cli.main([*argv, str(path), "--shard", f"{shard}/2"]) == 0
    texts += [json.loads(x)["text"] for x in path.read_text().splitlines()]
  rows = (tmp_path / "whole.jsonl").read_text().splitlines()
  assert texts == [json.loads(row)["text"] for row in rows]


@pytest.mark.slow
def test_a_run_learns_from_what_a_teacher_wrote(teacher, texts, home, tmp_path):
  """Sequence-level distillation by a file, beside prose at the same budget."""
  words = " ".join(texts[:10]).split()
  starts = [" ".join(words[n : n + 4]) for n in range(0, 1000, 5)]
  asked = tmp_path / "asked.jsonl"
  asked.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in starts))
  said = tmp_path / "said.jsonl"
  argv = ["generate", teacher, "--prompts", str(asked), "--to", str(said)]
  argv += ["--max-new-tokens", "12", "--temperature", "0.7"]
  assert cli.main([*argv, "--batch-size", "100"]) == 0

  def written(split, **more):
    source = data.Source(f"jsonl:{said}", format="completion", split=split)
    return data.TextData((source,), 32, "pad", batch_size=16, **more)

  prose = data.Source(f"text:{home}/train")
  arms = {
    "said": written("[:80%]"),
    "prose": data.TextData((prose,), 32, batch_size=16),
  }
  found = {}
  for name, learnt in arms.items():
    made = config.Config(
      student=config.Cut((0, 3), ref=teacher),
      method=methods.CrossEntropy(),
      data=learnt,
      evals={"eval": written("[80%:]", epochs=1)},
      optimizer=optim.AdamW(lr=3e-3),
      steps=60,
      eval_every=60,
    )
    train.train(made, tmp_path / name, log=lambda _: None)
    found[name] = [
      row["eval/ce"]
      for row in metrics.read(tmp_path / name)
      if "eval/ce" in row
    ]
  assert found["said"][-1] < min(found["said"][0], found["prose"][-1]) - 0.1


def test_stop_strings_cut_files_and_streams(teacher, tmp_path, capsys):
  argv = ["generate", teacher, *GREEDY, "--prompt", "The for statement"]
  assert cli.main(argv) == 0
  whole = capsys.readouterr().out.removesuffix("\n")
  answer = whole.removeprefix("The for statement")
  stop = answer[3:6]
  before = answer[: answer.index(stop)]
  assert cli.main([*argv, "--stop", stop, "--stop", "nowhere"]) == 0
  assert capsys.readouterr().out == f"The for statement{before}\n"
  path = tmp_path / "one.txt"
  path.write_text("The for statement\n\n")
  argv[-2:] = ["--prompts", str(path)]
  assert cli.main([*argv, "--stop", stop]) == 0
  [row] = rows_of(capsys)
  assert row["text"] == before
  assert row["finish"] == "stop"
  assert row["tokens"] <= 6


def test_every_setting_has_a_flag(capsys):
  with pytest.raises(SystemExit):
    cli.main(["generate", "--help"])
  said = capsys.readouterr().out
  for field in dataclasses.fields(Sampling):
    assert f"--{field.name.replace('_', '-')}" in said


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("p.jsonl", '{"prompt": "a"}\n{"prompt": 3}\n', 'p.jsonl:2: "prompt" is 3'),
    ("p.jsonl", '{"prompt": "a"}\n\n{', "p.jsonl:3: not valid JSON"),
    ("p.jsonl", '{"text": "a"}', 'p.jsonl:1: expected an object with either'),
    ("p.jsonl", "[1]", "p.jsonl:1: expected an object"),
    ("p.jsonl", '{"messages": []}', 'p.jsonl:1: "messages" must be a list'),
    ("p.jsonl", '{"messages": [{"role": "user"}]}', "p.jsonl:1: "),
    ("p.jsonl", '{"prompt": ""}', "p.jsonl:1: the prompt has no tokens"),
    ("p.txt", "\n \n", "found no prompts"),
    ("p.csv", "a", "prompts come from a .txt file"),
    ("p.txt", None, "cannot be read"),
  ],
)  # fmt: skip
def test_faults_of_prompt_files_are_named(
  name, text, message, teacher, tmp_path, capsys
):
  path = tmp_path / name
  if text is not None:
    path.write_text(text)
  assert cli.main(["generate", teacher, "--prompts", str(path)]) == 2
  said = capsys.readouterr().err
  assert message in said
  assert "Traceback" not in said


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--top-p", "2"], "top_p=2.0, expected more than 0, up to 1"),
    (["--max-new-tokens", "0"], "max_new_tokens=0"),
    (["--stop", ""], "empty text"),
    (["--batch-size", "0"], "batch_size is 0"),
    (["--num-samples", "0"], "--num-samples is 0"),
    (["--shard", "2/2"], "--shard is '2/2'"),
    (["--to", "/nowhere/out.jsonl"], "No such file"),
  ],
)
def test_faults_of_flags_are_named(flags, message, teacher, prompts, capsys):
  argv = ["generate", teacher, "--prompts", str(prompts), *GREEDY, *flags]
  assert cli.main(argv) == 2
  assert message in capsys.readouterr().err


def test_a_file_for_one_streamed_text_is_refused(teacher, capsys):
  with pytest.raises(SystemExit) as stopped:
    cli.main(["generate", teacher, "--prompt", "x", "--to", "out.jsonl"])
  assert stopped.value.code == 2
  assert "--to belongs to --prompts" in capsys.readouterr().err
