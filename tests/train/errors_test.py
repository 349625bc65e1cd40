# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong ends with one message, code 2, and nothing written."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jdistill import cli, export


@pytest.fixture
def copy(world, tmp_path) -> pathlib.Path:
  """A teacher of one's own to spoil."""
  return pathlib.Path(
    shutil.copytree(world.teacher, tmp_path / "mine", dirs_exist_ok=True)
  )


@pytest.fixture
def refused(world, tmp_path, capsys):
  """Trains with flags and expects a refusal; gives its message."""

  def run(*flags: str, body: str = "", said: str) -> None:
    workdir = tmp_path / "run"
    path = world.file(tmp_path, body)
    try:
      code = cli.main(["train", str(path), "--workdir", str(workdir), *flags])
    except SystemExit as stop:
      code = stop.code
    shown = capsys.readouterr().err
    assert code == 2, shown
    assert re.search(said, shown), shown
    assert "Traceback" not in shown
    assert shown.count("jdistill: ") == 1
    assert not workdir.exists()

  return run


def teacher_is(path: pathlib.Path) -> tuple[str, str]:
  return ("--teachers.teacher.ref", str(path))


def test_missing_teacher(refused, tmp_path):
  refused(*teacher_is(tmp_path / "none"), said=r"none")


def test_directory_without_a_model(refused, tmp_path):
  (tmp_path / "empty").mkdir()
  refused(*teacher_is(tmp_path / "empty"), said=r"config\.json")


def test_truncated_safetensors(refused, copy):
  file = copy / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-100])
  refused(*teacher_is(copy), said=r"model\.safetensors")


def test_truncated_gguf(refused, world, tmp_path):
  file = export.export(str(world.teacher), tmp_path / "small.gguf",
                       format="gguf")  # fmt: skip
  file.write_bytes(file.read_bytes()[:-100])
  refused(*teacher_is(file), said=r"small\.gguf")


def test_shapes_that_do_not_fit_the_config(refused, copy):
  path = copy / "config.json"
  tree = json.loads(path.read_text())
  path.write_text(json.dumps(tree | {"intermediate_size": 48}))
  refused(*teacher_is(copy), said=r"(32.*48|48.*32)")


def test_a_tensor_that_is_not_there(refused, copy):
  file = copy / "model.safetensors"
  tensors = safetensors.load_file(file)
  gone = sorted(tensors)[-1]
  safetensors.save_file({k: tensors[k] for k in sorted(tensors)[:-1]}, file)
  refused(*teacher_is(copy), said=re.escape(gone))


def test_tokenizer_with_more_ids_than_the_head(refused, copy, make_world):
  make_world[1](copy, 400)
  refused(*teacher_is(copy), said=r"80 of its ids.*320 logits")


def test_another_vocabulary(refused, tmp_path, make_world):
  other = tmp_path / "other"
  make_world[0](other, vocab=320, seed=2)
  make_world[1](other, 300)
  body = f"cfg = dataclasses.replace(cfg, student=config.Pretrained({str(other)!r}), tokenizer={str(other)!r})"  # noqa: E501
  refused(body=body, said=r"another vocabulary")


def test_text_with_nothing_to_learn(refused, tmp_path):
  (tmp_path / "bare.jsonl").write_text('{"text": ""}\n')
  body = f"cfg = dataclasses.replace(cfg, data=data.TextData((data.Source('jsonl:{tmp_path}/bare.jsonl'),), seq_len=16, batch_size=8))"  # noqa: E501
  refused(body=body, said=r"bare\.jsonl")


def test_missing_text(refused, tmp_path):
  body = f"cfg = dataclasses.replace(cfg, data=data.TextData((data.Source('jsonl:{tmp_path}/gone.jsonl'),), seq_len=16, batch_size=8))"  # noqa: E501
  refused(body=body, said=r"gone\.jsonl")


def test_batch_that_does_not_divide(refused):
  refused("--data.batch-size", "7", said=r"batch_size is 7.*multiple of 8")


def test_mesh_that_does_not_fit(refused):
  refused("--mesh.tensor", "3", said=r"does not fit 8 devices")


def test_field_that_does_not_exist(world, tmp_path, capsys):
  path = world.file(tmp_path)
  with pytest.raises(SystemExit) as stop:
    cli.main(["train", str(path), "--stepz", "3"])
  assert stop.value.code == 2
  assert "--steps" in capsys.readouterr().err


def test_layers_that_are_not_there(refused):
  refused("--student.layers", "0", "7", said=r"7")


def test_freeze_that_matches_nothing(refused):
  body = (
    "cfg = dataclasses.replace(cfg, freeze=(optim.Freeze('student/nose/*'),))"
  )
  refused(body=body, said=r"student/nose/\*.*matches no parameter")


def test_workdir_with_other_files(world, tmp_path, capsys):
  (tmp_path / "home").mkdir()
  (tmp_path / "home" / "thesis.tex").write_text("x")
  path = world.file(tmp_path)
  code = cli.main(["train", str(path), "--workdir", str(tmp_path / "home")])
  assert code == 2
  assert "holds other files" in capsys.readouterr().err
  assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_weights_with_pickle_are_not_read(refused, copy):
  (copy / "model.safetensors").unlink()
  np.save(copy / "x.npy", np.zeros(2))
  (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
  refused(*teacher_is(copy), said=r"safetensors")


def test_devices_are_eight():
  """What the sizes above count on."""
  assert jax.device_count() == 8
