# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness on local tasks, against whole logits in float64."""

import io
import json

import numpy as np
import pytest
import rich.console

from jdistill import (
  cli,
  evaluate,
  harness,
  harness_command,
  sampling,
  types,
)

CHOICE = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
"""
QUESTIONS = [
  {"question": "The if statement is used for", "choices": [" conditional"
   " execution", " loops", " nothing"], "answer": 0},
  {"question": "A break statement may only occur in a", "choices": [" loop",
   " module", " very long story about other things"], "answer": 0},
  {"question": "Names refer to ", "choices": ["objects", "files"],
   "answer": 0},
]  # fmt: skip


@pytest.fixture(scope="module")
def tasks(home, texts):
  """A directory of three tasks."""
  folder = home / "tasks"
  folder.mkdir()

  def write(name, kind, rows, more):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = CHOICE.format(name=name, data=path, kind=kind) + more
    (folder / f"{name}.yaml").write_text(text)

  write("local_choice", "multiple_choice", QUESTIONS,
        'doc_to_choice: "{{choices}}"\n'
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n")  # fmt: skip
  rows = [{"question": "", "answer": text[:150]} for text in texts[:3]]
  write("local_text", "loglikelihood_rolling", rows,
        "metric_list: [{metric: byte_perplexity}]\n")  # fmt: skip
  rows = [{"question": q["question"], "answer": "x"} for q in QUESTIONS]
  write("local_writing", "generate_until", rows,
        'generation_kwargs: {until: ["e"], max_gen_toks: 8}\n'
        "metric_list: [{metric: exact_match}]\n")  # fmt: skip
  return folder


@pytest.fixture(scope="module")
def model(teacher):
  return harness.LM(teacher, batch_size=2, max_length=48)


def log_probs(logits_of, ref, ids):
  """Of each id but the first, given those before it."""
  logits = logits_of(ref, ids[:-1])
  logits = logits - logits.max(-1, keepdims=True)
  logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return logs[np.arange(len(ids) - 1), ids[1:]], logs.argmax(-1) == ids[1:]


def test_answers_are_scored_in_their_contexts(model, teacher, logits_of):
  encode = model.tok_encode
  pairs = [
    (q["question"], choice) for q in QUESTIONS for choice in q["choices"]
  ]
  pairs += [("a" * 70, " long context"), ("", "no context")]
  asked = [_Asked(pair) for pair in pairs]
  found = model.loglikelihood(asked, disable_tqdm=True)
  for (context, answer), (value, greedy) in zip(pairs, found, strict=True):
    if not context:
      ids, count = [model.prefix_token_id, *encode(answer)], None
      count = len(ids) - 1
    else:
      ids = encode(context + answer)
      count = len(ids) - len(encode(context.rstrip()))
    logs, best = log_probs(logits_of, teacher, np.array(ids[-49:]))
    np.testing.assert_allclose(value, logs[-count:].sum(), rtol=1e-5)
    assert greedy == best[-count:].all()


def test_each_token_of_a_long_text_is_read_once(
  model, teacher, texts, logits_of
):
  """In windows of 48 tokens, the last of which sees as much as it can."""
  ids = [model.prefix_token_id, *model.tok_encode(texts[0][:400])]
  assert len(ids) > 100
  total, at = 0.0, 1
  while at < len(ids):
    end = min(at + 48, len(ids))
    seen = np.array(ids[max(0, end - 49) : end])
    total += log_probs(logits_of, teacher, seen)[0][-(end - at) :].sum()
    at = end
  [found] = model.loglikelihood_rolling([_Asked((texts[0][:400],))])
  assert found == pytest.approx(total, rel=1e-5)


@pytest.mark.slow
def test_answers_are_cut_before_their_stop_strings(model):
  asked = {"until": ["e", "\n"], "max_gen_toks": 12}
  prompts = [q["question"] for q in QUESTIONS]
  found = model.generate_until([_Asked((p, asked)) for p in prompts])
  settings = sampling.Sampling(max_new_tokens=12, temperature=0.0)
  for prompt, text in zip(prompts, found, strict=True):
    [whole] = sampling.answers(
      model.architecture,
      model._params,
      [np.array(model.tok_encode(prompt))],
      settings,
      ends=evaluate.end_ids(model.tokenizer),
      tokenizer=model.tokenizer,
    )
    cuts = [whole.text.find(stop) for stop in asked["until"]]
    cut = min((c for c in cuts if c >= 0), default=len(whole.text))
    assert text == whole.text[:cut]


@pytest.mark.slow
def test_the_command_prints_what_the_harness_says(
  teacher, run, tasks, tmp_path, capsys
):
  names = "local_choice,local_text,local_writing"
  out = tmp_path / "all.json"
  command = ["harness", teacher, str(run), "--tasks", names, "--json",
             "--include-path", str(tasks), "--to", str(out)]  # fmt: skip
  assert cli.main(command) == 0
  rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()
          if line.startswith('{"model"')]  # fmt: skip
  assert {row["model"] for row in rows} == {teacher, str(run)}
  assert {(r["task"], r["metric"]) for r in rows} == {
    ("local_choice", "acc"), ("local_choice", "acc_norm"),
    ("local_text", "byte_perplexity"), ("local_writing", "exact_match"),
  }  # fmt: skip
  assert all(row["questions"] == 3 for row in rows)
  said = json.loads(out.read_text())
  assert len(said[teacher]["samples"]["local_choice"]) == 3
  assert "local_choice" in _shown(harness_command.table(rows))


def test_bad_questions_are_refused(teacher, home, capsys):
  assert cli.main(["harness", teacher, "--tasks", "arc_esy"]) == 2
  error = capsys.readouterr().err
  assert "knows no arc_esy; near it are arc_easy" in error
  with pytest.raises(types.UserError, match="batch_size is 0"):
    harness.LM(teacher, batch_size=0)
  wrong = ["harness", teacher, "--tasks", "arc_easy", "--to", str(home)]
  assert cli.main(wrong) == 2
  assert "is a directory; name a file" in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_what_transformers_says(teacher, tasks):
  pytest.importorskip("torch")
  import lm_eval

  manager = lm_eval.tasks.TaskManager(include_path=str(tasks))
  names = ["local_choice", "local_text", "local_writing"]
  results = []
  for model in (harness.LM(teacher), "hf"):
    own = {"model_args": {"pretrained": teacher, "dtype": "float32"}}
    found = lm_eval.simple_evaluate(
      model, tasks=names, task_manager=manager, log_samples=True,
      bootstrap_iters=0, device="cpu", **(own if model == "hf" else {}),
    )  # fmt: skip
    results.append(found)
  for name in names:
    ours, theirs = (found["samples"][name] for found in results)
    for a, b in zip(ours, theirs, strict=True):
      if name == "local_writing":
        assert a["resps"] == b["resps"]
        continue
      # Pairs of nats and whether it is the greedy answer, or nats.
      values = [np.array(x["resps"], object).astype(float) for x in (a, b)]
      np.testing.assert_allclose(*values, rtol=1e-4)


def _shown(table) -> str:
  console = rich.console.Console(file=io.StringIO(), width=200)
  console.print(table)
  return console.file.getvalue()


class _Asked:
  """A request as the harness makes it."""

  def __init__(self, args):
    self.args = args
