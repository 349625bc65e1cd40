# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from jdistill import cli


@pytest.fixture
def prompts(tmp_path):
  path = tmp_path / "prompts.txt"
  path.write_text("The for statement\n\nThe class\n")
  return path


@pytest.mark.slow
def test_drafts_are_measured_on_the_same_prompts(teacher, run, prompts, capsys):
  argv = ["speculate", teacher, teacher, str(run), "--prompts", str(prompts)]
  argv += ["--max-new-tokens", "12", "--draft-tokens", "2", "--json"]
  assert cli.main([*argv, "--repeats", "1", "--batch-size", "2"]) == 0
  rows = [json.loads(x) for x in capsys.readouterr().out.splitlines()[-2:]]
  assert [row["draft"] for row in rows] == [teacher, str(run)]
  assert [row["prompts"] for row in rows] == [2, 2]
  assert [row["different"] for row in rows] == [0, 0]
  assert rows[0]["rate"] == 1.0
  assert rows[1]["rate"] < 1.0
  assert rows[0]["timing"]["speedup"] > 0
  assert {"draft_ratio", "block_ratio"} <= set(rows[0]["timing"]["costs"])


def test_a_table_of_drafts(teacher, prompts, capsys):
  argv = ["speculate", teacher, teacher, "--prompts", str(prompts)]
  argv += ["--max-new-tokens", "6", "--tree", "2,1", "--repeats", "0"]
  assert cli.main([*argv, "--temperature", "1", "--max-prompts", "1"]) == 0
  assert "accepted" in capsys.readouterr().out


@pytest.mark.slow
def test_generate_with_a_draft_writes_the_same(teacher, run, capsys):
  argv = ["generate", teacher, "--prompt", "The for", "--temperature", "0"]
  argv += ["--max-new-tokens", "9"]
  assert cli.main(argv) == 0
  plain = capsys.readouterr().out
  assert cli.main([*argv, "--draft", str(run), "--draft-tokens", "3"]) == 0
  said = capsys.readouterr()
  assert said.out == plain
  assert "tokens per target pass" in said.err


@pytest.mark.slow
def test_stops_and_penalties_with_a_draft(teacher, run, capsys):
  argv = ["generate", teacher, "--prompt", "The for", "--temperature", "0"]
  argv += ["--max-new-tokens", "12", "--repetition-penalty", "1.4"]
  assert cli.main(argv) == 0
  whole = capsys.readouterr().out
  answer = whole.removeprefix("The for").rstrip("\n")
  stop = answer[4:7]
  argv += ["--stop", stop]
  assert cli.main(argv) == 0
  plain = capsys.readouterr().out
  assert plain == f"The for{answer[: answer.index(stop)]}\n"
  assert cli.main([*argv, "--draft", str(run), "--draft-tokens", "3"]) == 0
  assert capsys.readouterr().out == plain


def test_a_draft_for_the_prompts_of_a_file_is_refused(prompts, capsys):
  argv = ["generate", "x", "--prompts", str(prompts), "--draft", "y"]
  with pytest.raises(SystemExit):
    cli.main(argv)
  assert "log-probabilities" in capsys.readouterr().err


def test_a_draft_of_another_vocabulary_is_refused(
  teacher, other_model, prompts, capsys
):
  argv = ["speculate", teacher, other_model, "--prompts", str(prompts)]
  assert cli.main(argv) == 2
  error = capsys.readouterr().err
  assert other_model in error
  assert "different vocabularies" in error


@pytest.mark.slow
def test_a_run_that_goes_by_the_targets_features(
  teacher, draft, other_model, prompts, capsys
):
  argv = ["speculate", teacher, str(draft), "--prompts", str(prompts)]
  argv += ["--max-new-tokens", "12", "--tree", "2,2,1", "--json"]
  assert cli.main([*argv, "--repeats", "1"]) == 0
  [row] = [json.loads(x) for x in capsys.readouterr().out.splitlines()[-1:]]
  assert (row["draft"], row["different"]) == (str(draft), 0)
  assert row["timing"]["costs"]["draft_ratio"] > 0
  argv = ["generate", teacher, "--prompt", "The for", "--temperature", "0"]
  argv += ["--max-new-tokens", "9"]
  assert cli.main(argv) == 0
  plain = capsys.readouterr().out
  assert cli.main([*argv, "--draft", str(draft)]) == 0
  assert capsys.readouterr().out == plain
  assert cli.main(["evaluate", str(draft)]) == 0
  rows = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
  assert all(row["kl"] > 0 for row in rows)
  assert cli.main(["generate", str(draft), "--prompt", "The for"]) == 2
  assert "jdistill generate TARGET --draft" in capsys.readouterr().err
  assert cli.main(["export", str(draft), "--to", "nowhere"]) == 2
  assert "only decoder language models" in capsys.readouterr().err
