# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What people do wrong ends with one message, code 2 and nothing written."""

import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from corpus import commands, configs, data, runs, weights

from jdistill import cli

# Threads of a checkpoint that cannot be read may outlive the command.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)
ROOT = pathlib.Path(__file__).parents[2]
CASES = [
  pytest.param(
    one,
    id=f"{part.__name__.rpartition('.')[2]}-{one.name}",
  )
  for part in (configs, data, weights, runs, commands)
  for one in part.CASES
]


def listing(root: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Everything below a directory, with what tells of a change."""
  found = {}
  for path in sorted(root.rglob("*")):
    stat = path.stat()
    size = 0 if path.is_dir() else stat.st_size
    found[str(path.relative_to(root))] = size, stat.st_mtime_ns
  return found


def run(argv: list[str]) -> int:
  """The exit code of `jdistill`, or of a file in launch/."""
  if argv[0].startswith("launch/") and argv[0].endswith(".sh"):
    return subprocess.run(["bash", ROOT / argv[0], *argv[1:]]).returncode
  try:
    if argv[0].startswith("launch/"):
      sys.argv = argv
      runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
      return 0
    return cli.main(argv)
  except SystemExit as end:
    return end.code if isinstance(end.code, int) else 1


def plain(said: str) -> str:
  """A message without the boxes that tyro draws around it, on one line."""
  return " ".join(re.sub(r"[\u2500-\u257f]", " ", said).split())


@pytest.mark.parametrize("one", CASES)
def test_a_bad_input(one, place, server, capfd, monkeypatch):
  for make in one.makes:
    make(place)
  argv = [word.replace("{server}", server) for word in shlex.split(one.argv)]
  monkeypatch.setattr(sys, "argv", ["jdistill", *argv])
  before = listing(place)
  code = run(argv)
  out, said = capfd.readouterr()
  assert code == 2, said
  assert "Traceback" not in said
  assert said.count("jdistill: ") <= 1, said
  for part in one.says:
    assert part.replace("{server}", server) in plain(said), said
  assert out == ""
  after = listing(place)
  left = [name for name in after if name.startswith(one.leaves or "/")]
  assert {k: v for k, v in after.items() if k not in left} == before


def test_the_corpus_is_large_and_names_differ():
  names = [one.id for one in CASES]
  assert len(names) == len(set(names)) > 200
