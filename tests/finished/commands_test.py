# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
import time

import jax
import pytest

from jdistill import cli, pretrained, tokenizers


def lines(capsys):
  return capsys.readouterr().out.splitlines()


def test_evaluate_prints_a_json_line_for_each_last(run, teacher, home, capsys):
  data = f"text:{home / 'held.txt'}"
  options = ["--data", data, "--seq-len", "32", "--max_rows", "2"]
  code = cli.main(["evaluate", str(run), f"{run}@2", *options])
  assert code == 0
  rows = [json.loads(line) for line in lines(capsys)[-2:]]
  assert [row["model"] for row in rows] == [str(run), f"{run}@2"]
  for row in rows:
    assert row["teacher"] == teacher
    assert row["seq_len"] == 32
    assert row["data"] == data
    assert {"kl", "ppl", "agreement", "bits_per_byte", "tokens"} <= set(row)
  assert rows[0]["kl"] != rows[1]["kl"]


def greedy(logits_of, ref, prompt, count):
  tokenizer = tokenizers.load(ref)
  ids = tokenizer.encode(prompt)
  for _ in range(count):
    ids.append(int(logits_of(ref, ids)[-1].argmax()))
  return tokenizer.decode(ids, skip_special_tokens=True)


def test_generate_writes_the_likeliest_text(run, logits_of, capsys):
  argv = ["generate", str(run), "--prompt", "The for", "--temperature", "0"]
  assert cli.main([*argv, "--max-new-tokens", "6"]) == 0
  expected = greedy(logits_of, str(run), "The for", 6)
  assert expected.startswith("The for")
  assert capsys.readouterr().out == expected + "\n"


def test_generate_draws_by_seed(teacher, capsys):
  argv = ["generate", teacher, "--prompt", "The", "--temperature", "1"]
  argv += ["--max-new-tokens", "8", "--seed"]
  said = []
  for seed in ("1", "1", "2"):
    assert cli.main([*argv, seed]) == 0
    said.append(capsys.readouterr().out)
  assert said[0] == said[1] != said[2]


def test_generate_in_a_chat_shows_the_answer_alone(teacher, logits_of, capsys):
  argv = ["generate", teacher, "--chat", "--prompt", "hello", "--temperature"]
  assert cli.main([*argv, "0", "--max-new-tokens", "4"]) == 0
  said = capsys.readouterr().out
  assert "hello" not in said
  assert "<|im_" not in said
  prompt = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
  whole = greedy(logits_of, teacher, prompt, 4)
  assert whole.endswith(said.rstrip("\n"))


def test_export_and_models(run, teacher, tmp_path, capsys):
  out = str(tmp_path / "out")
  assert cli.main(["export", str(run), "--to", out]) == 0
  assert lines(capsys) == [out]
  assert cli.main(["models", out, teacher, str(run), "--json"]) == 0
  exported, whole, student = map(json.loads, lines(capsys))
  assert (exported["layers"], whole["layers"], student["layers"]) == (2, 4, 2)
  assert exported["family"] == "llama"
  assert whole["licence"] == "mit"
  assert whole["chat_template"] is True
  assert student["kind"] == "run"
  assert exported["parameters"] == student["parameters"]
  # 4 bytes a parameter, and a header.
  assert 0 < exported["bytes"] - 4 * exported["parameters"] < 4000
  leaves = jax.tree.leaves(pretrained.find(out).params())
  assert sum(leaf.size for leaf in leaves) == exported["parameters"]


def test_models_for_people(teacher, run, capsys):
  assert cli.main(["models", teacher, str(run)]) == 0
  said = [line.split() for line in lines(capsys)]
  assert ["layers", "4", "2"] in said
  assert ["licence", "mit", "unknown"] in said


def test_report_names_its_file(run, tmp_path, capsys):
  target = tmp_path / "page.html"
  assert cli.main(["report", str(run), "--to", str(target)]) == 0
  assert lines(capsys) == [str(target)]
  assert target.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["evaluate", "/nowhere"], "no such file or directory"),
    (["evaluate", "RUN", "--teacher", "OTHER"], "different vocabularies"),
    (["evaluate", "RUN@3"], "no checkpoint of step 3; there are 2, 4"),
    (["generate", "RUN", "--prompt", ""], "no tokens"),
    (["generate", "RUN", "--prompt", "x", "--temperature", "-1"],
     "expected 0 or more"),
    (["export", "RUN", "--to", "RUN"], "holds other files"),
    (["report", "HOME"], "no run directory"),
    (["models", "tdfs:x"], "did you mean tfds:x?"),
  ],
  ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_faults_end_with_one_message(
  argv, message, run, home, other_model, capsys
):
  names = {"RUN": str(run), "OTHER": other_model, "HOME": str(home)}
  for name, path in names.items():
    argv = [argument.replace(name, path) for argument in argv]
  assert cli.main(argv) == 2
  said = capsys.readouterr().err
  assert said.startswith("jdistill: ")
  assert message in said
  assert "Traceback" not in said


@pytest.mark.parametrize(
  "command", ["evaluate", "generate", "export", "report", "models", "train"]
)
def test_each_command_has_help(command, capsys):
  with pytest.raises(SystemExit) as stopped:
    cli.main([command, "--help"])
  assert stopped.value.code == 0
  assert f"usage: jdistill {command}" in capsys.readouterr().out


def test_help_comes_at_once():
  begin = time.process_time()
  made = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "jdistill.cli", "--help"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert "evaluate REF" in made.stdout
  for heavy in ("jax", "numpy", "flax", "transformers", "matplotlib"):
    assert f" {heavy}\n" not in made.stderr
  assert time.process_time() - begin < 0.5
