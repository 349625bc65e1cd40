# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest

from jdistill import cli, tokenizers
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
