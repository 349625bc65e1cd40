# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The card beside an exported student, read back as the hub reads it."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from jdistill import checkpoint, export, metrics, model_card, refs


def card_of(ref, directory, **kwargs) -> ModelCard:
  path = export.export(str(ref), directory, **kwargs)
  return ModelCard.load(path / "README.md")


def cells(text: str, first: str) -> list[str]:
  """The other cells of the table's row that begins with `first`."""
  (line,) = [t for t in text.splitlines() if t.startswith(f"| {first} |")]
  return [cell.strip() for cell in line.split("|")[2:-1]]


def number(text: str) -> float:
  return float(text.replace(",", ""))


def test_what_a_student_comes_from(run, tmp_path):
  card = card_of(run, tmp_path / "out", dtype="bfloat16")
  assert card.data.model_name == "run"
  assert card.data.license == "mit"  # as the teacher's card says
  assert card.data.library_name == "transformers"
  assert card.data.pipeline_tag == "text-generation"
  assert "distillation" in card.data.tags
  assert card.data.base_model is None  # it is not on the hub
  (student,) = cells(card.text, "Student")
  assert student.endswith("parameters, bfloat16")
  (start,) = cells(card.text, "Initial weights")
  assert start == "layers 0, 3 of `teacher`, licence mit"
  assert cells(card.text, "Teacher") == ["`teacher`, licence mit"]
  assert cells(card.text, "Method") == [
    "`KD(divergence=forward_kl, tau=1.0)` (arXiv:1503.02531)"
  ]
  assert cells(card.text, "Data") == ["`text:train`"]
  assert cells(card.text, "Steps") == ["4 of 4, 1,024 tokens"]
  assert cells(card.text, "Batch") == ["8 rows of 32 tokens"]
  assert "AdamW(" in cells(card.text, "Optimizer")[0]
  assert refs.locate(str(tmp_path / "out")).licence == "mit"


def test_no_path_of_this_machine_is_told(run, home, tmp_path):
  card = card_of(run, tmp_path / "out")
  assert str(home) not in card.content
  assert str(tmp_path) not in card.content


def test_figures_are_those_of_the_run(run, tmp_path):
  card = card_of(run, tmp_path / "out")
  evals = checkpoint.read_json(run / "result.json")["evals"]
  keys = ("kl", "ppl", "agreement", "bits_per_byte", "accuracy")
  for name, stages in evals.items():
    part = card.text.partition(f"`{name}`, ")[2].partition("\n\n`")[0]
    for title, stage in (
      ("student at the start", "start"),
      ("student at step 4", "end"),
    ):
      found = [number(cell) for cell in cells(part, title)]
      expected = [stages[stage][key] for key in keys]
      assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    kl, ppl, agreement, *unknown = cells(part, "teacher")
    assert (number(kl), number(agreement)) == (0, 1)
    assert number(ppl) == pytest.approx(stages["teacher"]["ppl"], rel=1e-3)
    assert unknown == ["", ""]
  found = {
    (r.dataset_type, r.metric_type): r.metric_value
    for r in card.data.eval_results
  }
  assert found["eval", "kl"] == evals["eval"]["end"]["kl"]
  assert found["other", "perplexity"] == evals["other"]["end"]["ppl"]
  assert len(found) == 10
  assert "`text:held.txt`" in card.text


def test_an_earlier_checkpoint_has_its_own_figures(run, tmp_path):
  card = card_of(f"{run}@2", tmp_path / "out")
  (row,) = [r for r in metrics.read(run) if r["step"] == 2 and "eval/kl" in r]
  part = card.text.partition("`eval`, ")[2].partition("\n\n`")[0]
  kl, *_ = cells(part, "student at step 2")
  assert number(kl) == pytest.approx(row["eval/kl"], rel=1e-3)
  assert cells(card.text, "Steps") == ["2 of 4, 512 tokens"]
  assert card.data.model_name == "run"


@pytest.fixture
def mine(run, tmp_path):
  """A copy of the run whose records may be changed."""
  return shutil.copytree(run, tmp_path / "mine")


def test_a_step_without_evaluation_has_no_figures(mine, tmp_path):
  rows = [r for r in metrics.read(mine) if r["step"] < 4 or "loss" in r]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (mine / "metrics.jsonl").write_text(text)
  card = card_of(mine, tmp_path / "out")
  assert "Step 4 was not evaluated during the run." in card.text
  assert card.data.eval_results is None


def test_models_and_data_of_the_hub_are_linked(mine, tmp_path):
  models = json.loads((mine / "models.json").read_text())
  big = {"ref": "hf:org/big@main", "licence": "Apache-2.0"}
  models |= {"teachers": {"teacher": big}, "start": big}
  (mine / "models.json").write_text(json.dumps(models))
  tree = json.loads((mine / "config.json").read_text())
  tree["data"]["sources"][0] |= {"ref": "hf:org/text", "split": "[:90%]"}
  (mine / "config.json").write_text(json.dumps(tree))
  card = card_of(mine, tmp_path / "out")
  assert card.data.base_model == "org/big"
  assert card.data.datasets == ["org/text"]
  assert card.data.license == "apache-2.0"
  assert cells(card.text, "Data") == ["`hf:org/text[:90%]`"]


def test_data_without_a_reference_are_told_by_their_fields(mine, tmp_path):
  tree = json.loads((mine / "config.json").read_text())
  tree["data"] = {"type": "jdistill.beds.Sums", "digits": 2, "batch_size": 8}
  (mine / "config.json").write_text(json.dumps(tree))
  card = card_of(mine, tmp_path / "out")
  assert cells(card.text, "Data") == ["`Sums(digits=2, batch_size=8)`"]
  assert cells(card.text, "Batch") == ["8 rows"]


def test_a_run_without_a_record_of_its_models(mine, tmp_path):
  (mine / "models.json").unlink()
  card = card_of(mine, tmp_path / "out")
  assert cells(card.text, "Teacher") == ["`teacher`, licence not stated"]
  assert card.data.license is None


def test_a_model_that_no_run_made(teacher, tmp_path):
  card = card_of(teacher, tmp_path / "out")
  assert card.data.tags == ["jdistill"]
  assert card.data.license == "mit"
  assert card.text.startswith("\n# teacher\n")
  assert "figures" not in card.text


def test_gguf_has_no_card(run, tmp_path):
  export.export(str(run), tmp_path / "out.gguf", format="gguf")
  assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


@pytest.mark.parametrize(
  ("stated", "fields"),
  [
    (["MIT"], {"license": "mit"}),
    (["Apache-2.0", "apache-2.0"], {"license": "apache-2.0"}),
    (["Apache Software License"], {"license": "apache-2.0"}),
    (
      ["Big Model License (v2)"],
      {"license": "other", "license_name": "big-model-license-v2"},
    ),
    (
      ["gemma", "mit"],
      {"license": "other", "license_name": "gemma-and-mit"},
    ),
    (["mit", None], {}),
    ([], {}),
  ],
  ids=str,
)
def test_licences_as_the_hub_names_them(stated, fields):
  assert model_card.licence(stated) == fields


@pytest.mark.parametrize(
  ("ref", "said"),
  [
    ("hf:org/big/x.gguf@main", "`hf:org/big/x.gguf@main`"),
    (f"pypi:some==1.0#{'0' * 64}", "`pypi:some==1.0`"),
    ("/home/me/secret/big", "`big`"),
    ("/home/me/secret/big.gguf", "`big.gguf`"),
    ("/home/me/runs/one@best", "`one`"),
    ("orbax:/home/me/big", "`orbax:big`"),
    ("jsonl:/home/me/*.jsonl", "`jsonl:*.jsonl`"),
    ("stdlib:pydoc", "`stdlib:pydoc`"),
  ],
)
def test_references_lose_digests_and_directories(ref, said):
  assert model_card.shown(ref) == said
