# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import gguf
import pytest

from jdistill import refs
from jdistill.types import UserError


def write(directory, *names, text="{}"):
  for name in names:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_hugging_face_directory(tmp_path):
  write(tmp_path / "m", "config.json", "model.safetensors")
  write(tmp_path / "m", "README.md", text="---\nlicense: mit\n---\n# Model\n")
  found = refs.locate(str(tmp_path / "m"))
  assert (found.kind, found.path) == ("huggingface", tmp_path / "m")
  assert (found.licence, found.name) == ("mit", "m")
  assert refs.locate(found) is found


def test_other_licences(tmp_path):
  write(tmp_path / "m", "config.json", "model.safetensors")
  write(tmp_path / "m", "LICENSE", text="\n   Apache License\n Version 2.0\n")
  assert refs.locate(str(tmp_path / "m")).licence == "Apache License"
  front = "---\nlicense: other\nlicense_name: 'llama3'\n---\n"
  write(tmp_path / "m", "README.md", text=front)
  assert refs.locate(str(tmp_path / "m")).licence == "llama3"


def test_a_gguf_file(tmp_path, gguf_bytes):
  path = tmp_path / "tiny.gguf"
  path.write_bytes(gguf_bytes)
  found = refs.locate(str(path))
  assert (found.kind, found.path) == ("gguf", path)
  assert (found.licence, found.name) == ("bsd-3-clause", "tiny")
  path.write_bytes(gguf_bytes[:-1])
  with pytest.raises(UserError, match="truncated"):
    refs.locate(str(path))


def test_a_part_of_a_split_gguf_file(tmp_path):
  path = tmp_path / "x-00001-of-00002.gguf"
  writer = gguf.GGUFWriter(path, "llama")
  writer.add_uint16("split.count", 2)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  with pytest.raises(UserError, match="llama-gguf-split --merge"):
    refs.locate(str(path))


def test_a_run(tmp_path):
  write(tmp_path / "r", "config.json", "checkpoints/3/x")
  for ref, selector in {"": "last", "@last": "last", "@3": "3"}.items():
    found = refs.locate(f"{tmp_path / 'r'}{ref}")
    assert (found.kind, found.path) == ("run", tmp_path / "r")
    assert found.selector == selector
  write(tmp_path / "m", "config.json", "model.safetensors")
  with pytest.raises(UserError, match="not a run directory"):
    refs.locate(f"{tmp_path / 'm'}@best")


def test_an_orbax_directory(tmp_path):
  write(tmp_path / "o", "_CHECKPOINT_METADATA")
  assert refs.locate(f"orbax:{tmp_path / 'o'}").kind == "orbax"
  with pytest.raises(UserError, match="write orbax:"):
    refs.locate(str(tmp_path / "o"))


WRONG = {
  "pickled": (["config.json", "pytorch_model.bin"], "never read"),
  "no weights": (["config.json"], r"no \*\.safetensors"),
  "no config": (["model.safetensors"], "no config.json"),
  "gguf": (["a.gguf"], r"name one, such as .*a\.gguf"),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_other_directories_are_named(case, tmp_path):
  names, message = WRONG[case]
  write(tmp_path, *names)
  with pytest.raises(UserError, match=message):
    refs.locate(str(tmp_path))


def test_missing_files_get_a_suggestion(tmp_path):
  write(tmp_path, "smollm2.gguf")
  with pytest.raises(UserError, match=r"did you mean .*smollm2\.gguf"):
    refs.locate(str(tmp_path / "smolm2.gguf"))
  with pytest.raises(UserError, match="for the hub: hf:some/model"):
    refs.locate("some/model")
  with pytest.raises(UserError, match="RUN@last"):
    refs.locate(str(tmp_path / "run@lsat"))
  with pytest.raises(UserError, match="no such"):
    refs.locate(f"orbax:{tmp_path / 'absent'}")
