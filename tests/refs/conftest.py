# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Small models, wheels and an index made of a directory."""

import os
import zipfile

import gguf
import numpy as np
import pytest


@pytest.fixture(scope="session")
def gguf_bytes(tmp_path_factory) -> bytes:
  """A GGUF file with one tensor, that states its licence."""
  path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
  writer = gguf.GGUFWriter(path, "llama")
  writer.add_license("bsd-3-clause")
  writer.add_tensor("w", np.arange(64, dtype=np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path.read_bytes()


@pytest.fixture
def make_wheel():
  """Writes a wheel of the given files, as pip takes it."""

  def make(directory, name, files, *, version="1.0", metadata=()):
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    files = {
      **files,
      f"{stem}.dist-info/METADATA": "\n".join([*lines, *metadata, "", ""]),
      f"{stem}.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n"
      ),
      f"{stem}.dist-info/RECORD": "",
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
      for entry, data in files.items():
        archive.writestr(entry, data)
    return path

  return make


@pytest.fixture
def index(tmp_path, monkeypatch):
  """A directory that is the only place where pip looks for wheels."""
  directory = tmp_path / "index"
  directory.mkdir()
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
  monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
  monkeypatch.setenv("JDISTILL_CACHE", str(tmp_path / "cache"))
  return directory


@pytest.fixture
def cached(tmp_path, monkeypatch):
  """Where a wheel lies that has been fetched: no index is asked for it."""
  monkeypatch.setenv("JDISTILL_CACHE", str(tmp_path / "cache"))
  return lambda name: tmp_path / "cache" / "pypi" / f"{name}==1.0"
