# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0

import pytest

from jdistill import refs
from jdistill.refs import globs
from jdistill.types import UserError


@pytest.fixture
def folder(tmp_path):
  for name in (
    "a.jsonl",
    "b.jsonl.gz",
    "deep/c.jsonl",
    "novel.txt",
    "notes.md",
    "code.py",
    "table.parquet",
  ):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
  return tmp_path


def names(found, folder):
  return [path.relative_to(folder).as_posix() for path in found.paths]


def test_files_directories_and_globs(folder):
  found = refs.locate_data(f"jsonl:{folder}/a.jsonl")
  assert (found.kind, found.name) == ("jsonl", "a")
  assert names(found, folder) == ["a.jsonl"]
  found = refs.locate_data(f"jsonl:{folder}")
  assert names(found, folder) == ["a.jsonl", "b.jsonl.gz", "deep/c.jsonl"]
  found = refs.locate_data(f"text:{folder}")
  assert names(found, folder) == ["notes.md", "novel.txt"]
  found = refs.locate_data(f"text:{folder}/**/*.py")
  assert names(found, folder) == ["code.py"]
  found = refs.locate_data(f"parquet:{folder}/*")
  assert "table.parquet" in names(found, folder)


def test_what_is_not_there_is_said_with_what_is(folder):
  with pytest.raises(UserError, match=r"novle\.txt.*did you mean novel\.txt"):
    refs.locate_data(f"text:{folder}/novle.txt")
  with pytest.raises(UserError, match=r"\*\.csv"):
    refs.locate_data(f"csv:{folder}/*.csv")
  with pytest.raises(UserError, match=r"no \.npz file in the directory"):
    refs.locate_data(f"npz:{folder}")
  with pytest.raises(UserError, match="does not exist"):
    refs.locate_data(f"text:{folder}/absent/x/*.txt")


def test_data_without_files():
  found = refs.locate_data("tfds:lm1b/subwords8k:1.1.0")
  assert (found.kind, found.paths) == ("tfds", ())
  assert found.name == "lm1b/subwords8k:1.1.0"
  found = refs.locate_data("stdlib:pydoc")
  assert (found.kind, found.paths, found.name) == ("stdlib", (), "pydoc")


GLOBS = {
  "a/*.txt": ["a/x.txt", "a/y.txt"],
  "**/*.txt": ["a/b/z.txt", "a/x.txt", "a/y.txt", "top.txt"],
  "a/**": ["a/b/z.txt", "a/x.txt", "a/y.txt", "a/z.csv"],
  "a": ["a/b/z.txt", "a/x.txt", "a/y.txt", "a/z.csv"],
  "a/?.txt": ["a/x.txt", "a/y.txt"],
  "a/[!y].txt": ["a/x.txt"],
  "top.txt": ["top.txt"],
  "*.csv": [],
}


@pytest.mark.parametrize("pattern", GLOBS, ids=str)
def test_globs_over_names(pattern):
  listed = ["top.txt", "a/y.txt", "a/x.txt", "a/b/z.txt", "a/z.csv"]
  assert globs.select(pattern, listed) == GLOBS[pattern]


def test_a_glob_that_is_none():
  with pytest.raises(UserError, match=r"\[z-a\]"):
    globs.select("[z-a]", ["x"])


@pytest.fixture
def package(cached, make_wheel):
  make_wheel(
    cached("texts"),
    "texts",
    {
      "texts/__init__.py": "raise SystemExit('a package was imported')",
      "texts/data/one.txt": "one",
      "texts/data/two.txt": "two",
      "texts/data/chats.jsonl": "{}",
      "texts/data/plain.cor": "prose without an ending that tells",
      "texts/data/wiki.xml.bz2": "x",
      "texts/data/wiki1.xml-p000010p000302-shortened.bz2": "x",
      "texts/data/model.bin": b"\0\1\2",
    },
    metadata=["License: CC0-1.0"],
  )


PACKAGED = {
  "texts/data/*.txt": ("text", 2),
  "texts/data/one.txt": ("text", 1),
  "texts/data/chats.jsonl": ("jsonl", 1),
  "texts/data/plain.cor": ("text", 1),
  "texts/data/wiki*": ("mediawiki", 2),
}


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("inside", PACKAGED, ids=str)
def test_files_of_a_package(inside):
  found = refs.locate_data(f"pypi:texts==1.0/{inside}")
  assert (found.kind, len(found.paths)) == PACKAGED[inside]
  assert all(path.is_file() for path in found.paths)
  assert (found.name, found.licence) == ("texts==1.0", "CC0-1.0")
  unpinned = refs.locate_data(f"pypi:texts/{inside}")
  assert (unpinned.paths, unpinned.name) == (found.paths, found.name)


@pytest.mark.usefixtures("package")
def test_wrong_paths_in_a_package():
  with pytest.raises(UserError, match=r"did you mean texts/data/one\.txt"):
    refs.locate_data("pypi:texts==1.0/texts/data/on.txt")
  with pytest.raises(UserError, match="different kinds"):
    refs.locate_data("pypi:texts==1.0/texts/data")
  with pytest.raises(UserError, match="no kind of data"):
    refs.locate_data("pypi:texts==1.0/texts/data/model.bin")
  with pytest.raises(UserError, match="of one file and 2 match"):
    refs.locate_data(f"pypi:texts==1.0/texts/data/*.txt#{'0' * 64}")
  with pytest.raises(UserError, match="another file"):
    refs.locate_data(f"pypi:texts==1.0/texts/data/one.txt#{'0' * 64}")
